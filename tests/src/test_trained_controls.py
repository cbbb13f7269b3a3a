"""Controls that are trained, on a tiny model: each is what it says, over the pairs that were scored."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cliplens.hooked import HookedCLIP
from cliplens.records import Batch
from cliplens.run import Settings, run
from cliplens.run.context import RunContext
from cliplens.run.controls import Scored
from cliplens.run.dictionary import train_again, training_rows
from cliplens.run.scoring import held_out_batches
from cliplens.run.trained_controls import SEEDS, shuffled_weights, trained_controls
from cliplens.runfolder import RunFolder
from cliplens.sites import sites_of
from cliplens.store import Group, harvest
from cliplens.stream import stream
from support.pictures import noise_pairs

SETTINGS = Settings(pairs="tiny", d_sae=24, k=3, samples=320, batch_size=16, controls=True)


@pytest.fixture(scope="module")
def context(clip: HookedCLIP, tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    pairs = noise_pairs(70)
    cache = harvest(clip, pairs, sites_of("hook_embedding"), tmp_path_factory.mktemp("run") / "activations")
    dictionary = train_again(training_rows(cache, SETTINGS), SETTINGS)
    return RunContext(clip, pairs, cache, dictionary, SETTINGS, RunFolder(Path("nowhere")), Group.current())


@pytest.fixture(scope="module")
def kept(context: RunContext) -> list[Batch]:
    return list(held_out_batches(context))


@pytest.fixture(scope="module")
def made(context: RunContext, kept: list[Batch]) -> tuple[dict[str, list[Scored]], list[str]]:
    return trained_controls(context, kept)


def test_each_control_is_over_the_scored_pairs(
    context: RunContext, kept: list[Batch], made: tuple[dict[str, list[Scored]], list[str]]
) -> None:
    found, notes = made
    assert notes == []
    assert {name: len(scored) for name, scored in found.items()} == {
        "frozen_decoder": 1,
        "reseeds": SEEDS,
        "untrained_model": 1,
    }
    for scored in found.values():
        for batches, decoder in scored:
            assert [b.ids for b in batches] == [b.ids for b in kept]
            assert decoder.shape == context.dictionary.decoder.shape
            assert not torch.equal(decoder, context.dictionary.decoder)
            assert all(
                (a.codes.known_units.images == b.codes.known_units.images).all()
                for a, b in zip(batches, kept, strict=True)
            )
    (frozen, _), (seed, _) = found["frozen_decoder"][0], found["reseeds"][0]
    assert all(
        torch.equal(a.raw.image, b.raw.image) for batches in (frozen, seed) for a, b in zip(batches, kept, strict=True)
    )


def test_the_untrained_model_is_read_with_shuffled_weights_and_judges_itself(
    context: RunContext, made: tuple[dict[str, list[Scored]], list[str]]
) -> None:
    ((batches, _),) = made[0]["untrained_model"]
    assert isinstance(context.clip, HookedCLIP)
    with shuffled_weights(context.clip.model):
        seen = list(stream(context.clip, context.pairs, sites_of("hook_embedding")))
    rows = {i: row for part in seen for i, row in zip(part.ids, part.text, strict=True)}
    for batch in batches:
        expected = torch.stack([rows[i] for i in batch.ids])
        torch.testing.assert_close(batch.raw.text, expected, atol=1e-5, rtol=1e-4)
        unit = torch.nn.functional.normalize(expected.double(), dim=1)
        torch.testing.assert_close(batch.judged["clip"].text, unit, atol=1e-5, rtol=1e-4)


TINY = Settings(pairs="world:64", d_sae=32, k=3, samples=256, batch_size=64, held_out=0.5, controls=True)
"""Far too little to learn anything: most figures lie within their controls."""


@pytest.mark.parametrize(
    "asked",
    [
        TINY,
        pytest.param(
            Settings(pairs="world:400", d_sae=64, k=4, samples=8192, batch_size=256, controls=True),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_with_controls_writes_them_and_the_report_greys_what_is_not_above(
    asked: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(asked, tmp_path / "run")
    said = capsys.readouterr().err
    assert "controls: training a dictionary with a frozen decoder" in said
    assert "controls: training a dictionary from another seed, 3 of 3" in said
    assert "controls: training a dictionary on the model with shuffled weights" in said
    summary = json.loads(folder.summary.read_text())
    found = summary["controls"]
    assert set(found["explained_variance"]) == {"untrained", "frozen_decoder", "untrained_model", "reseeds"}
    assert set(found["cofiring"]) == {"permuted", "frozen_decoder", "untrained_model", "reseeds"}
    for figure, by_control in found.items():
        for row in by_control.values():
            assert set(row) == {"value", "control", "difference", "low", "high", "beyond"}
            if None not in row.values():
                assert row["low"] <= row["difference"] <= row["high"], figure

    def measured(row: dict[str, Any]) -> bool:
        return None not in (row["value"], row["control"])

    rows = [row for by in found.values() for name, row in by.items() if name != "reseeds"]
    page = folder.report.read_text()
    assert "frozen decoder" in page
    assert page.count('<tr class="within">') == sum(measured(row) and not row["beyond"] for row in rows) > 0
    notes = json.loads(folder.findings.read_text())["notes"]
    assert any(note.startswith("Not above their control, so no evidence: ") for note in notes)
    headline = [r["beyond"] for name, r in found["explained_variance"].items() if name != "reseeds"]
    assert ("not above its control" in page.partition("Classes of latents")[0]) >= (not all(headline))

    again = run(asked, tmp_path / "run", resume=True)
    assert "controls: training" not in capsys.readouterr().err
    assert json.loads(again.summary.read_text()) == summary
    assert run(replace(asked, controls=False), tmp_path / "run", resume=True, redo=True).summary.exists()
