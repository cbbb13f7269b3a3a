"""transformers' CLIP, SigLIP and SigLIP 2 against their open_clip form: tiny random models made from configs."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import cliplens
from cliplens.errors import InputError
from cliplens.testing import check_tower, fingerprint
from cliplens_hooks.models.hf_conversion import to_open_clip
from support.tiny import shaken

TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vocab_size": 49, "max_position_embeddings": 8, "bos_token_id": 47, "eos_token_id": 48, "pad_token_id": 1,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 70, "num_hidden_layers": 2, "num_attention_heads": 3,
    "image_size": 32, "patch_size": 16,
}  # fmt: skip
SAME = {"hidden_size": 32, "num_attention_heads": 2}


def clip_model(act: str = "quick_gelu", eos: int = 48) -> nn.Module:
    config = transformers.CLIPConfig(
        text_config={**TEXT, "hidden_act": act, "eos_token_id": eos},
        vision_config={**VISION, "hidden_act": act},
        projection_dim=24,
    )
    return made(transformers.CLIPModel, config)


def siglip_model() -> nn.Module:
    config = transformers.SiglipConfig(text_config=TEXT, vision_config={**VISION, **SAME})
    return made(transformers.SiglipModel, config)


def siglip2_model() -> nn.Module:
    config = transformers.Siglip2Config(text_config=TEXT, vision_config={**VISION, **SAME, "num_patches": 4})
    return made(transformers.Siglip2Model, config)


def made(kind: Any, config: Any) -> nn.Module:
    torch.manual_seed(0)
    return shaken(kind(config))


MODELS = {
    "clip": clip_model,
    "clip, gelu": lambda: clip_model("gelu"),
    "clip, end token 2": lambda: clip_model(eos=2),
    "siglip": siglip_model,
    "siglip 2": siglip2_model,
}


def inputs(n: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 47, (n, 8), generator=generator)
    tokens[:, 0], tokens[:, 5], tokens[:, 6:] = 47, 48, 1
    return torch.randn(n, 3, 32, 32, generator=generator), tokens


def embeddings(model: Any, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(model, transformers.Siglip2Model):
        patches = images.view(len(images), 3, 2, 16, 2, 16).permute(0, 2, 4, 3, 5, 1).reshape(len(images), 4, -1)
        whole = {
            "pixel_attention_mask": torch.ones(len(images), 4),
            "spatial_shapes": torch.tensor([[2, 2]] * len(images)),
        }
        image = model.get_image_features(pixel_values=patches, **whole)
    else:
        image = model.get_image_features(pixel_values=images)
    return image.pooler_output, model.get_text_features(input_ids=tokens).pooler_output


@pytest.mark.parametrize("kind", MODELS)
def test_both_towers_equal_transformers_own(kind: str) -> None:
    model = MODELS[kind]()
    images, tokens = inputs()
    before = fingerprint(model)
    clip = cliplens.wrap(model)
    with torch.no_grad():
        image, text = embeddings(model, images, tokens)
        torch.testing.assert_close(
            clip.encode_image(images), image, rtol=0, atol=1e-6 * max(1, image.abs().max().item())
        )
        torch.testing.assert_close(clip.encode_text(tokens), text, rtol=0, atol=1e-6 * max(1, text.abs().max().item()))
    assert fingerprint(model) == before


def test_logits_are_transformers_logits() -> None:
    images, tokens = inputs()
    for model in (clip_model(), siglip_model()):
        with torch.no_grad():
            wanted = model(input_ids=tokens, pixel_values=images).logits_per_image
            torch.testing.assert_close(cliplens.wrap(model)(images, tokens), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_saved_folder_loads_by_name(kind: str, tmp_path: Path) -> None:
    model: Any = MODELS[kind]()
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no tokenizer"):
        clip = cliplens.load(f"hf:{tmp_path}", device="cpu")
    images, tokens = inputs()
    with torch.no_grad():
        assert torch.equal(clip(images, tokens), cliplens.wrap(model)(images, tokens))
    assert clip.identity.weights_sha256 == cliplens.wrap(model).identity.weights_sha256
    assert clip.preprocess is not None


def test_converted_towers_conform() -> None:
    clip = cliplens.wrap(siglip_model())
    check_tower(clip.vision, inputs(2)[0])
    assert clip.vision.level == clip.text.level == "heads"


def test_other_models_are_refused_in_words(tmp_path: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="found bert"):
        cliplens.load(f"hf:{tmp_path}")
    with pytest.raises(InputError, match=r"config\.json"):
        cliplens.load("hf:/no/such/folder")
    with pytest.raises(InputError, match="leave `pretrained` out"):
        cliplens.load(f"hf:{tmp_path}", "openai")


def test_dtype_is_kept_and_the_copy_is_in_eval_mode() -> None:
    model = clip_model().double().train()
    converted = to_open_clip(model)
    assert next(converted.parameters()).dtype == torch.float64
    assert not converted.training
    assert model.training
