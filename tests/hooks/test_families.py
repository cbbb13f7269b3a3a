"""One model per family through the conformance kit, and all of open_clip's configurations against the table."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

import cliplens
from cliplens import registry
from cliplens.contracts import Tower
from cliplens.errors import InputError
from cliplens.sites import Site
from cliplens.stream import stream
from cliplens.testing import check_tower
from cliplens_hooks.coverage import coverage
from cliplens_hooks.models.open_clip import OpenClipModels
from support.families import kind_key, reduced_inputs, reduced_model
from support.pictures import noise_pairs
from support.tiny import shaken

CARDS = {card.name: card for card in OpenClipModels().models()}
KINDS = {kind_key(name): name for name in reversed(CARDS)}
VISION = ["ViT-B-16-SigLIP", "EVA02-B-16", "EVA02-E-14", "RN50"]
SLOW = [
    "PE-Core-B-16",
    "coca_ViT-B-32",
    "convnext_large_d",
    "MobileCLIP2-S3",
    "ViT-gopt-16-SigLIP2-256",
    "vit_medium_patch16_gap_256",
    "MobileCLIP2-L-14",
    "EVA01-g-14",
    "EVA02-L-14",
    "PE-Core-bigG-14-448",
    "MobileCLIP2-S0",
    "ViT-H-14-CLIPA",
    "ViTamin-S",
    "MobileCLIP-B",
    "swin_base_patch4_window7_224",
    "vit_relpos_medium_patch16_cls_224",
]
TEXT = ["mt5-base-ViT-B-32", "nllb-clip-base"]
SLOW_TEXT = ["roberta-ViT-B-32", "ViT-B-16-SigLIP", "coca_ViT-B-32", "xlm-roberta-base-ViT-B-32"]


def marked(fast: list[str], slow: list[str]) -> list[Any]:
    return [*fast, *(pytest.param(name, marks=pytest.mark.slow) for name in slow)]


def opened(name: str) -> tuple[Any, nn.Module]:
    model = reduced_model(name)
    return cliplens.wrap(model), model


@pytest.mark.parametrize("name", marked(VISION, SLOW))
def test_vision_families_conform(name: str) -> None:
    clip, model = opened(name)
    check_tower(clip.vision, reduced_inputs(name)[0], stock=lambda x: model.encode_image(x, normalize=False))


@pytest.mark.parametrize("name", marked(TEXT, SLOW_TEXT))
def test_text_families_conform(name: str) -> None:
    clip, model = opened(name)
    check_tower(clip.text, reduced_inputs(name)[1], stock=lambda x: model.encode_text(x, normalize=False))


def one_per_family() -> list[str]:
    """The first of the reduced configurations of each pair of families."""
    pairs: dict[tuple[str, str], str] = {}
    for name in KINDS.values():
        card = CARDS[name]
        if not name.startswith("ViTamin"):
            pairs.setdefault((card.vision_family, card.text_family), name)
    return list(pairs.values())


def agrees_with_the_table(name: str) -> None:
    clip, _ = opened(name)
    images, tokens = reduced_inputs(name)
    for same in (card for n, card in CARDS.items() if kind_key(n) == kind_key(name)):
        assert clip.vision.level == same.vision_level, same
        assert clip.text.level == same.text_level, same
        assert clip.vision.cfg.family.startswith(same.vision_family), same
        assert clip.text.cfg.family.startswith(same.text_family), same
    with torch.no_grad():
        logits, cache = clip.run_with_cache(images, tokens)
        torch.testing.assert_close(logits, clip(images, tokens), rtol=1e-4, atol=1e-4)
    assert len(cache) == len([n for n in clip.hook_dict if not n.endswith("hook_result")])


@pytest.mark.parametrize("name", one_per_family())
def test_every_family_is_what_the_table_says(name: str) -> None:
    agrees_with_the_table(name)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_configuration_is_what_the_table_says() -> None:
    for name in KINDS.values():
        agrees_with_the_table(name)


def test_every_model_is_opened_by_one_adapter_only() -> None:
    adapters = [adapter for _, adapter in registry.made("towers", Tower)]
    for name in ("ViT-B-32", "ViT-B-16-SigLIP", "EVA02-B-16", "RN50", "mt5-base-ViT-B-32", "coca_ViT-B-32"):
        model = reduced_model(name)
        for side in ("vision", "text"):
            assert sum(adapter.opens(model, side) for adapter in adapters) == 1, (name, side)  # type: ignore[arg-type]


def test_dino_and_other_timm_transformers_open_alone() -> None:
    torch.manual_seed(0)
    trunk = timm.create_model(
        "vit_small_patch14_reg4_dinov2", num_classes=0, depth=2, embed_dim=32, num_heads=2, img_size=28
    )
    clip = cliplens.wrap(shaken(trunk, weights=True))
    assert clip.text is None
    assert clip.vision.n_special == 5
    check_tower(clip.vision, torch.randn(2, 3, 28, 28), stock=trunk)


def test_a_tower_with_registers_and_no_class_token_has_no_special_position() -> None:
    torch.manual_seed(0)
    trunk = timm.create_model(
        "vit_small_patch14_reg4_dinov2", num_classes=0, depth=1, embed_dim=32, num_heads=2, img_size=28,
        class_token=False, global_pool="avg",
    )  # fmt: skip
    pairs = noise_pairs(2)
    model = shaken(trunk, weights=True)
    clip = cliplens.wrap(model, preprocess=lambda picture: pil_to_tensor(picture.resize((28, 28))) / 255)
    images = torch.stack([clip.preprocess(pair.image) for pair in pairs])
    assert clip.vision.n_special == 4
    check_tower(clip.vision, images, stock=trunk)
    with pytest.raises(InputError, match="a vision tower with a class token"):
        clip.vision.special_position(images)
    site = Site("vision", "blocks.0.hook_resid_post")
    everywhere = clip.vision.read(images, [site.hook])[site.hook]
    (read,) = stream(clip, pairs, [site])
    torch.testing.assert_close(read.image, everywhere.mean(1))
    with pytest.raises(InputError, match="a vision tower with a class token"):
        list(stream(clip, pairs, [site], token="cls"))


def test_the_names_of_all_configurations_are_open_clips() -> None:
    assert list(CARDS) == open_clip.list_models()


def test_the_coverage_document_is_what_the_code_says() -> None:
    document = Path(__file__).parents[2] / "docs" / "coverage.md"
    assert document.read_text() == coverage(OpenClipModels().models()), (
        "run python -m cliplens_hooks.coverage docs/coverage.md"
    )
