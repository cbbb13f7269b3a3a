"""Where in a sample a latent fires: each number against encoding that position alone; runs that read positions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import cliplens
from cliplens.exemplars import POSITIONS, load_exemplars, load_positions, save_positions
from cliplens.hooked import patch_grid
from cliplens.pairs import Pairs
from cliplens.records import Exemplars, PairedActs, PositionActivations
from cliplens.run import Settings, run
from cliplens.run.positions import TOP, positions_of, spans_of, strongest_first
from cliplens.sites import Modality, Site, sites_of
from cliplens.stream import SiteReader
from cliplens.world import world_pairs
from support.tiny_dictionaries import tiny_dictionary

HOOK = "blocks.1.hook_resid_post"


def exemplars(modality: str, pairs: Pairs, latents: int, top: int) -> Exemplars:
    rng = np.random.default_rng(0)
    at = np.stack([rng.permutation(len(pairs))[:top] for _ in range(latents)])
    at[2, 3:] = -1
    return Exemplars(modality, tuple(pairs), at, np.ones(at.shape))  # type: ignore[arg-type]


@pytest.mark.parametrize("side", ["vision", "text"])
def test_each_number_is_the_code_of_that_position(side: str) -> None:
    clip, pairs = cliplens.load("world"), world_pairs(12)
    site = Site.parse(f"{side}.{HOOK}")
    dictionary = tiny_dictionary(clip.width(site), 20, means=True)
    shown = exemplars(site.modality, pairs, latents=20, top=TOP + 2)
    found = positions_of(clip, dictionary, [site], {site.modality: shown}, batch_size=5)
    assert {(latent, rank) for _, latent, rank in found} == {
        (latent, rank) for latent in range(20) for rank in range(TOP if latent != 2 else 3)
    }
    reader = SiteReader(clip, [site], "all")
    batch = reader.read(reader.decoder(pairs)[np.arange(12)])
    acts = batch.sites[site].acts
    for (modality, latent, rank), heat in list(found.items())[::7]:
        row = int(shown.at[latent, rank])
        rows = acts[row, 1:] if side == "vision" else acts[row, 1 : int(batch.tokens[row].argmax())]  # type: ignore[index]
        ids = ("x",) * len(rows)
        codes = dictionary.encode(
            PairedActs(ids, rows, None) if modality == "image" else PairedActs(ids, None, rows)
        ).of(modality)
        assert codes is not None
        np.testing.assert_allclose(heat.values, codes.dense()[:, latent].numpy(), atol=1e-5)
        if side == "vision":
            assert heat.grid == (4, 4)
        else:
            words = [pairs[row].caption[a:b] for a, b in heat.spans]  # type: ignore[index]
            assert "".join(words) == pairs[row].caption.replace(" ", "")  # type: ignore[union-attr]


def test_a_hook_with_one_position_has_none() -> None:
    clip, pairs = cliplens.load("world"), world_pairs(6)
    shown: dict[Modality, Exemplars | None] = {"image": exemplars("image", pairs, 8, 4)}
    assert positions_of(clip, tiny_dictionary(64, 8), sites_of("hook_embedding"), shown) == {}


def test_every_latents_strongest_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliplens.run.positions.MOST_PAIRS", 9)
    shown = exemplars("image", world_pairs(40), latents=9, top=6)
    wanted = strongest_first(shown)
    assert len(wanted) <= 9
    firsts = {shown.pairs[shown.at[k, 0]].id for k in range(9)}
    assert firsts <= set(wanted)


@pytest.mark.parametrize(
    ("n", "size", "grid"),
    [
        (49, (224, 224), (7, 7)),
        (196, None, (14, 14)),
        (98, (224, 448), (7, 14)),
        (50, (224, 224), None),
        (1, None, (1, 1)),
    ],
)
def test_patches_form_a_rectangle_like_the_image(
    n: int, size: tuple[int, int] | None, grid: tuple[int, int] | None
) -> None:
    assert patch_grid(n, size) == grid


def test_tokens_are_found_in_the_caption_whatever_their_case() -> None:
    caption = "Two CATS,  two dogs"
    spans = spans_of(caption, ["two ", "ca", "ts ", ", ", "two ", "dogs ", "?? "])
    assert [caption[a:b] for a, b in spans] == ["Two", "CA", "TS", ",", "two", "dogs", ""]


def test_they_come_back_from_disk(tmp_path: Path) -> None:
    given = {
        ("image", 3, 0): PositionActivations(np.array([0.0, 1.5, 0.25, 0.0]), (2, 2)),
        ("text", 1, 2): PositionActivations(np.array([0.5, 0.0]), None, ((0, 3), (4, 9))),
    }
    save_positions(tmp_path, given)  # type: ignore[arg-type]
    found = load_positions(tmp_path)
    assert set(found) == set(given)
    for key, heat in found.items():
        np.testing.assert_array_equal(heat.values, given[key].values)
        assert (heat.grid, heat.spans) == (given[key].grid, given[key].spans)
    save_positions(tmp_path, {})
    assert not (tmp_path / POSITIONS).exists()
    assert load_positions(tmp_path) == {}


@pytest.mark.parametrize(("side", "token"), [("vision", "patches"), ("text", "all")])
def test_a_run_over_every_position(tmp_path: Path, side: str, token: str) -> None:
    settings = Settings(
        pairs="world:300", hook=f"{side}.{HOOK}", token=token, d_sae=64, k=4, samples=8192, batch_size=256
    )
    folder = run(settings, tmp_path / "run")
    assert json.loads(folder.findings.read_text())["failed"] == []
    shown = next(e for e in load_exemplars(folder.exemplars) if e is not None)
    for latent in range(64):
        ids = [pair.id for pair, _ in shown.of(latent)]
        assert len(ids) == len(set(ids))
    found = load_positions(folder.exemplars)
    strongest = shown.values[:, 0]
    for (_, latent, rank), heat in found.items():
        assert heat.values.max(initial=0.0) <= strongest[latent] * 1.01
        if rank == 0 and side == "vision":
            np.testing.assert_allclose(heat.values.max(), strongest[latent], rtol=2e-2)
    assert torch.isfinite(torch.tensor([h.values.sum() for h in found.values()])).all()
