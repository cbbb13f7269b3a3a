"""A run that is given a dictionary takes hook and token choice from it, unless options say otherwise."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cliplens.errors import InputError
from cliplens.run.given import open_given
from cliplens.sae import Dictionary
from cliplens.settings import Settings
from support.dictionaries import D_IN, sae_of
from support.streams import provenance

BLOCK = "vision.blocks.1.hook_resid_post"


def given(tmp_path: Path, sites: tuple[str, ...], made_with: str, **options: object) -> Settings:
    made_on = replace(provenance(D_IN, centred=False), sites=sites, token=made_with)
    folder = Dictionary(sae_of("topk"), None, made_on).save(tmp_path / "sae")
    return open_given(Settings(pairs="world:8", sae=str(folder), **options))[1]


@pytest.mark.parametrize(
    ("sites", "token", "options", "expected"),
    [
        ((BLOCK,), "patches", {}, ((BLOCK,), "patches")),
        ((BLOCK,), "special", {}, ((BLOCK,), "cls")),
        ((BLOCK,), "patches", {"token": "mean"}, ((BLOCK,), "mean")),
        ((BLOCK,), "cls", {"hook": "hook_pooled"}, (("vision.hook_pooled", "text.hook_pooled"), "cls")),
        (("vision.hook_projected", "text.hook_projected"), "auto", {}, None),
        (
            ("vision.hook_projected", "text.hook_projected"),
            "auto",
            {"tower": "text"},
            (("text.hook_projected",), "auto"),
        ),
    ],
)
def test_hook_and_token_come_from_the_dictionary(
    sites: tuple[str, ...], token: str, options: dict, expected: tuple | None, tmp_path: Path
) -> None:
    settings = given(tmp_path, sites, token, **options)
    assert (tuple(map(str, settings.sites)), settings.token) == (expected or (sites, token))


def test_a_foreign_dictionary_with_a_hook_asks_for_the_tower(tmp_path: Path) -> None:
    sae = sae_of("topk")
    sae.cfg.metadata.hook_name = "blocks.9.hook_resid_post"
    folder = Dictionary(sae).save(tmp_path / "sae")
    with pytest.raises(InputError, match=r"hook blocks.9.*--hook vision.blocks.9.hook_resid_post.*--token"):
        open_given(Settings(pairs="world:8", sae=str(folder)))
    settings = open_given(Settings(pairs="world:8", sae=str(folder), tower="vision"))[1]
    assert settings.hook == "vision.blocks.9.hook_resid_post"


def test_codes_below_zero_are_not_scored(tmp_path: Path) -> None:
    folder = Dictionary(sae_of("abstopk")).save(tmp_path / "sae")
    with pytest.raises(InputError, match="abstopk, whose codes are negative too"):
        open_given(Settings(pairs="world:8", sae=str(folder), tower="vision"))


def test_a_layout_can_be_named(tmp_path: Path) -> None:
    state = {"W_enc": torch.randn(4, 6), "b_enc": torch.zeros(6), "W_dec": torch.randn(6, 4), "b_dec": torch.zeros(4)}
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="--layout plain"):
        open_given(Settings(pairs="world:8", sae=str(tmp_path)))
    assert open_given(Settings(pairs="world:8", sae=str(tmp_path), layout="plain"))[0].d_sae == 6
