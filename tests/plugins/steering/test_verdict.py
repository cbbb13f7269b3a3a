"""The line that compares an edit with a random edit of the same size."""

from typing import Any

import pytest

from cliplens_plugins.steering.figures import with_mean, with_share
from cliplens_plugins.steering.verdict import verdict


def shares(*values: float, name: str = "colour=blue", n: int = 48) -> list[dict[str, Any]]:
    return [{"dose": float(dose), **with_share(name, value, n)} for dose, value in enumerate(values)]


def test_an_edit_is_above_or_within_its_control() -> None:
    said = verdict(shares(0.0, 0.9), shares(0.0, 0.1), aim="colour=blue")
    assert said.startswith("'colour=blue' changes by +0.900 at dose 1, by +0.100 with a random edit of the same size")
    assert said.endswith("above its control")
    assert "within its control" in verdict(shares(0.0, 0.3), shares(0.0, 0.2), aim="colour=blue")
    assert verdict(shares(0.0, 0.1), shares(0.0, 0.9), aim="colour=blue").endswith("below its control")
    assert verdict(shares(0.9, 0.0), shares(0.9, 0.8), aim="colour=blue").endswith("above its control"), "either way"


def test_it_compares_at_the_given_dose_or_at_the_largest_up_to_1() -> None:
    own, random = shares(0.0, 0.1, 0.9), shares(0.0, 0.1, 0.1)
    assert "at dose 1," in verdict(own, random, aim="colour=blue")
    assert "at dose 2," in verdict(own, random, aim="colour=blue", dose=2.0)
    assert "at dose 2," in verdict([own[0], own[2]], [random[0], random[2]], aim="colour=blue")
    assert "could be compared" in verdict(own[:1], random[:1], aim="colour=blue")


@pytest.mark.parametrize(("words", "figure"), [(["blue"], "seen as blue"), (["17"], "class changed")])
def test_without_an_aim_it_takes_the_class_that_the_edit_names(words: list[str], figure: str) -> None:
    rows = [
        a | b | c
        for a, b, c in zip(
            shares(0.2, 0.9, name="image moved"),
            shares(0.2, 0.9, name="class changed"),
            shares(0.2, 0.9, name="seen as blue"),
            strict=True,
        )
    ]
    assert verdict(rows, rows, aim=None, words=words).startswith(f"{figure!r}")


def test_a_movement_says_that_it_has_no_aim_and_one_sample_is_no_test() -> None:
    rows = [{"dose": float(n), **with_mean("picture moved", values)} for n, values in enumerate(([0.0], [0.2]))]
    said = verdict(rows, rows, aim=None)
    assert "no test" in said
    assert said.endswith("this says how far, not where to")


def test_samples_with_rows_of_their_own_are_averaged() -> None:
    own = [{"dose": dose, "changed": dose * size} for size in (1.0, 1.1, 1.2) for dose in (0.0, 1.0)]
    random = [{**row, "changed": row["changed"] / 4} for row in own]
    said = verdict(own, random, aim=None)
    assert "by +1.100 at dose 1, by +0.275 with" in said
    assert "above its control" in said
