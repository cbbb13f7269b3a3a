"""Labels of configurations tell them apart, settings at their default included."""

from typing import Any

import pytest

from cliplens.settings import Settings
from cliplens_plugins.comparison.subjects import _VARIED, Subject, configurations
from support.comparisons import subject
from support.tiny_dictionaries import tiny_dictionary


def one(name: str, basis: dict[str, str] | None = None, d_sae: int = 64, **options: Any) -> Subject:
    """A dictionary with settings, without a run."""
    made = subject(name, **(basis or {}))
    asked = Settings(**{"pairs": "world:64", "model": "world", **options})
    made.__dict__.update(asked=asked, dictionary=tiny_dictionary(16, d_sae))
    return made


def labels(*subjects: Subject) -> list[str]:
    return list(configurations(subjects))


def test_a_default_is_said_as_the_number_it_stands_for() -> None:
    assert labels(one("a"), one("b", k=16)) == ["k 4", "k 16"]
    assert labels(one("a"), one("b", d_sae=128)) == ["d sae 64", "d sae 128"]
    assert labels(one("a"), one("b", samples=4096)) == ["samples default", "samples 4096"]
    assert labels(one("a", architecture="standard"), one("b", architecture="standard", sparsity=0.5)) == [
        "sparsity default",
        "sparsity 0.5",
    ]


def test_several_settings_at_their_default_are_said() -> None:
    said = labels(one("a"), one("b", k=16), one("c", k=16, samples=4096), one("d", samples=4096))
    assert said == ["k 4, samples default", "k 16, samples default", "k 16, samples 4096", "k 4, samples 4096"]


def test_a_number_that_is_the_default_is_no_other_configuration() -> None:
    (members,) = configurations([one("a"), one("b", k=4, seed=1), one("c", d_sae=64, seed=2)]).values()
    assert [s.name for s in members] == ["a", "b", "c"]


def test_an_architecture_without_k_has_none_in_its_label() -> None:
    assert labels(one("a", architecture="standard"), one("b", k=8)) == ["standard", "batchtopk, k 8"]


@pytest.mark.parametrize("part", ["vocabulary", "centring", "judge"])
def test_what_settings_do_not_tell_the_basis_does(part: str) -> None:
    assert labels(one("a", {part: "first"}), one("b", {part: "second"})) == [f"{part} first", f"{part} second"]
    same = [one("a", {part: "first"}, k=8), one("b", {part: "second"}, k=8), one("c", k=16)]
    assert labels(*same)[:2] == [f"k 8, {part} first", f"k 8, {part} second"]


def test_hashes_are_shortened() -> None:
    a, b = ("ab" * 32, "cd" * 32)
    assert labels(one("a", {"model": a}, k=8), one("b", {"model": b}, k=8), one("c", k=16))[:2] == [
        "k 8, model abababab",
        "k 8, model cdcdcdcd",
    ]


def test_where_nothing_else_differs_the_folders_are_named() -> None:
    first = one("a", {"model": "ab" * 32}, k=8)
    second = one("b", {"model": "ab" * 31 + "cd"}, k=8)  # the same beginning
    said = labels(first, second, one("c", k=16))
    assert said[:2] == ["k 8, model abababab, a", "k 8, model abababab, b"]
    assert len(set(said)) == 3


def test_every_setting_that_makes_another_dictionary_is_known() -> None:
    assert set(one("a").settings) == set(_VARIED)
