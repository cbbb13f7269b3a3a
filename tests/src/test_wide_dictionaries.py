"""A dictionary too wide for its rows is named before training and after scoring."""

from collections.abc import Iterator

from cliplens.records import PairedActs
from cliplens.run.degenerate import warnings_of
from cliplens.run.dictionary import width_note
from cliplens.settings import Settings
from cliplens.store import Cache


class Empty(Cache):
    """A cache without activations, so that nothing is said about them."""

    def __init__(self) -> None:
        pass

    def batches(self, **_: object) -> Iterator[PairedActs]:
        return iter(())


def told(alive: int, d_sae: int) -> list[str]:
    settings = Settings(pairs="world:64", model="world")
    return warnings_of(Empty(), settings, {"alive": alive, "explained_variance": 0.8}, d_sae)


def test_width_is_compared_with_the_rows_before_training() -> None:
    assert width_note(20_480, 1024) is None
    note = width_note(20_480, 16_384)
    assert note is not None
    assert "20,480 rows" in note
    assert "1,024 latents" in note
    assert "smaller --d-sae" in note


def test_a_mostly_dead_dictionary_is_a_warning_with_a_width_that_would_do() -> None:
    (warning,) = told(987, 16_384)
    assert warning.startswith("Warning: 15,397 of 16,384 latents (94%) fire on none")
    assert "--d-sae 1024" in warning
    assert told(9_000, 16_384) == []


def test_the_width_advised_holds_the_living_latents() -> None:
    for alive in (1, 2, 3, 100, 128, 129):
        (warning,) = told(alive, 16_384)
        advised = int(warning.split("--d-sae ")[1].rstrip(")."))
        assert alive <= advised < 2 * max(alive, 2)
