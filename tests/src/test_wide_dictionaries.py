"""A dictionary too wide for its rows is named before training and after scoring, with one advice."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cliplens.distributed import Group
from cliplens.records import PairedActs
from cliplens.run import OpenedRun, run
from cliplens.run.checks import check
from cliplens.run.degenerate import warnings_of
from cliplens.run.dictionary import NARROWEST, ROWS_PER_LATENT, default_width, rows_to_train, training_rows, width_note
from cliplens.run.harvesting import harvest_run
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary
from cliplens.settings import Settings
from cliplens.store import Cache
from support.tiny_dictionaries import tiny_dictionary


class Empty(Cache):
    """A cache without activations, so that nothing is said about them, and with a number of pairs."""

    def __init__(self, pairs: int) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return self.pairs

    def batches(self, **_: object) -> Iterator[PairedActs]:
        return iter(())

    def blocks(self, keep: object, size: int) -> Iterator[object]:
        return iter([SimpleNamespace(kept=np.arange(self.pairs))])

    def counts(self, block: object, site: object) -> np.ndarray:
        return np.ones(self.pairs, dtype=np.int64)


def told(alive: int, d_sae: int, pairs: int = 10_240, **options: object) -> list[str]:
    settings = Settings(pairs="world:64", model="world", **options)
    found = {"alive": alive, "explained_variance": 0.8}
    return warnings_of(Empty(pairs), settings, found, tiny_dictionary(4, d_sae))


def test_width_is_compared_with_the_rows_before_training() -> None:
    assert width_note(20_480, 1024) is None
    note = width_note(20_480, 16_384)
    assert note is not None
    assert "20,480 rows" in note
    assert "1,024 latents" in note
    assert "Use --d-sae 1024, or at least 327,680 rows" in note


@pytest.mark.parametrize("rows", [640, 1_000, 20_479, 20_480, 5_000_000])
def test_the_width_advised_is_one_that_is_not_advised_against(rows: int) -> None:
    note = width_note(rows, 10_000_000)
    advised = int(note.partition("--d-sae ")[2].partition(",")[0])
    assert width_note(rows, advised) is None
    assert width_note(rows, 4 * advised) is not None
    needed = int(note.partition("at least ")[2].partition(" rows")[0].replace(",", ""))
    assert width_note(needed, 10_000_000) is None


@pytest.mark.parametrize("rows", [0, 1, 88, 639])
def test_few_rows_carry_no_dictionary_and_no_width_is_advised(rows: int) -> None:
    note = width_note(rows, 256)
    assert "too few for a dictionary of any width: use at least 5,120 rows" in note
    assert "--d-sae" not in note
    assert width_note(ROWS_PER_LATENT * NARROWEST, 256) != note


def test_a_mostly_dead_dictionary_is_a_warning_with_the_same_advice() -> None:
    (warning,) = told(987, 16_384)
    assert warning.startswith("Warning: 15,397 of 16,384 latents (94%) fire on none")
    assert warning.endswith(width_note(20_480, 16_384))
    assert told(9_000, 16_384) == []


@pytest.mark.parametrize("alive", [1, 10, 100])
def test_after_scoring_no_other_width_is_advised_than_before_training(alive: int) -> None:
    (warning,) = told(alive, 256, pairs=44)
    assert width_note(88, 256) in warning
    assert warning.count("Use") + warning.count("use") == 1


def test_where_the_rows_suffice_no_width_is_advised() -> None:
    (warning,) = told(100, 256)
    assert "score more pairs, or train longer" in warning
    assert "--d-sae" not in warning


def test_of_a_given_dictionary_no_training_is_advised() -> None:
    (warning,) = told(100, 256, pairs=44, sae="sae/")
    assert "They may fire on other pairs: score more." in warning


@pytest.mark.parametrize("token", ["auto", "all"])
def test_rows_are_counted_as_the_provider_counts_them(token: str, tmp_path: Path) -> None:
    hook = "hook_embedding" if token == "auto" else "text.blocks.1.hook_resid_post"
    tower = "both" if token == "auto" else "text"
    settings = Settings(pairs="world:40", model="world", hook=hook, tower=tower, token=token, device="cpu")
    checked = check(settings, "harvest")
    folder = RunFolder(tmp_path / "run")
    cache = harvest_run(checked.clip, checked.pairs, checked.settings, folder, Group(), again=True)
    assert rows_to_train(cache, settings) == training_rows(cache, settings).rows > 40


@pytest.mark.parametrize(("rows", "k", "width"), [(480, None, 32), (7680, None, 384), (7679, None, 352), (480, 24, 96)])
def test_the_default_width_is_what_the_rows_carry(rows: int, k: int | None, width: int) -> None:
    assert default_width(96, rows, k) == width
    if rows >= ROWS_PER_LATENT * NARROWEST:
        assert width_note(rows, width) is None, "the default needs no advice"


def test_a_run_on_few_pairs_is_narrow_and_keeps_a_width_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = Settings(pairs="world:600", samples=512, batch_size=64)
    made = run(few, tmp_path / "few", until="train")
    rows = rows_to_train(Cache.open(made.activations), few)
    assert Dictionary.load(made.sae).d_sae == default_width(96, rows) < 64
    assert "latents, because there are" in capsys.readouterr().err
    wide = run(replace(few, d_sae=256), tmp_path / "wide", until="train")
    assert Dictionary.load(wide.sae).d_sae == 256
    assert OpenedRun(made).reseeded(1).d_sae == default_width(96, rows)
