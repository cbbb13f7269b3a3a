"""Controls that are trained, on a tiny model: each is what it says, over the pairs that were scored."""

import json
from dataclasses import replace
from pathlib import Path

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


@pytest.mark.slow
def test_a_run_with_controls_writes_them_and_the_report_greys_what_is_within(tmp_path: Path) -> None:
    asked = Settings(pairs="world:400", d_sae=64, k=4, samples=8192, batch_size=256, controls=True)
    folder = run(asked, tmp_path / "run")
    found = json.loads(folder.summary.read_text())["controls"]
    names = {"untrained", "frozen_decoder", "untrained_model", "reseeds"}
    assert set(found["explained_variance"]) == names
    page = folder.report.read_text()
    assert "frozen decoder" in page
    assert ('class="within"' in page) == any(
        not row["beyond"] for by in found.values() for name, row in by.items() if name != "reseeds"
    )
    again = replace(asked, controls=False)
    assert run(again, tmp_path / "run", resume=True, redo=True).summary.exists()
