"""Hugging Face folders are read as transformers reads them: pixels, activations, projections, one tower or two."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import cliplens
from cliplens.errors import InputError, MismatchError
from support.tiny import tiny_images

PART: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT: dict[str, Any] = {**PART, "max_position_embeddings": 16, "vocab_size": 49408, "eos_token_id": 49407}
VISION: dict[str, Any] = {**PART, "image_size": 32, "patch_size": 8}
SQUARE = {"height": 32, "width": 32}
USUAL: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "crop_size": SQUARE,
    "size": {"shortest_edge": 32},
    "resample": 3,
    "image_mean": [0.48, 0.45, 0.40],
    "image_std": [0.26, 0.26, 0.27],
    **{f"do_{step}": True for step in ("resize", "center_crop", "convert_rgb", "rescale", "normalize")},
}
SQUASHED = {"do_center_crop": False, "size": SQUARE}
PIXELS: dict[str, dict[str, Any]] = {
    "usual": {},
    "squashed": SQUASHED,
    **{f"resample {n}": {"resample": n} for n in (0, 2, 3)},
    **{f"squashed, resample {n}": {**SQUASHED, "resample": n} for n in (2, 3)},
    "not normalised": {"do_normalize": False},
    "not rescaled": {"do_rescale": False},
    "another factor": {"rescale_factor": 1 / 127.5},
    "neither": {"do_normalize": False, "do_rescale": False},
    "cropped from larger": {"size": {"shortest_edge": 48}},
    "cropped without resizing": {"do_resize": False},
    "cropped to the edge": {"size": {"height": 64, "width": 40}},
    "SigLIP's": {"image_processor_type": "SiglipImageProcessor", "size": SQUARE, "image_mean": [0.5] * 3},
    "ViT's": {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "image_std": [0.5] * 3},
}
WRONG_SIZE = {
    "larger crop": {"crop_size": {"height": 40, "width": 40}, "size": {"shortest_edge": 40}},
    "no crop of a long picture": {"do_center_crop": False},
}


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (48, 80, 3), dtype=np.uint8))
    return [
        noise,
        noise.resize((32, 32)),
        noise.convert("L"),
        noise.convert("RGBA"),
        noise.convert("P"),
        noise.rotate(90),
    ]


def joint(vision: str = "quick_gelu", text: str = "quick_gelu", **more: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config={**TEXT, "hidden_act": text, **more},
        vision_config={**VISION, "hidden_act": vision},
        projection_dim=16,
    )
    return transformers.CLIPModel(config).eval()


def tokens() -> Tensor:
    return cliplens.wrap(joint()).tokenizer(["a dog", "a red cat on a mat"])  # type: ignore[misc]


def embedding(answer: Any, name: str) -> Tensor:
    found = getattr(answer, name, None)
    return answer if isinstance(answer, Tensor) else answer.pooler_output if found is None else found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hf")
    joint().save_pretrained(place)
    return place


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", PIXELS)
def test_pixels_equal_those_of_the_folders_own_processor(what: str, folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({**USUAL, **PIXELS[what]}))
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    clip = cliplens.load(f"hf:{folder}", device="cpu")
    for picture in pictures():
        given = processor(images=picture.convert("RGB"), return_tensors="pt")["pixel_values"][0].float()
        assert torch.equal(clip.preprocess(picture), given)  # type: ignore[misc]
    assert json.dumps(PIXELS[what].get("size", USUAL["size"])) in clip.identity.preprocess


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", WRONG_SIZE)
def test_pixels_of_another_size_are_refused(what: str, folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({**USUAL, **WRONG_SIZE[what]}))
    with pytest.raises(MismatchError, match=r"images of the model's shape, \[3, 32, 32\].*correct size, crop_size"):
        cliplens.load(f"hf:{folder}", device="cpu")


@pytest.mark.parametrize("content", ["{", "[]", '{"image_processor_type": "NoSuchProcessor"}'])
def test_a_configuration_that_cannot_be_read_is_refused(content: str, folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(content)
    with pytest.raises(InputError, match=r"preprocessor_config\.json"):
        cliplens.load(f"hf:{folder}", device="cpu")


@pytest.mark.parametrize("vision", ["quick_gelu", "gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("text", ["quick_gelu", "gelu", "gelu_pytorch_tanh", "silu"])
def test_each_tower_has_its_own_activation(vision: str, text: str) -> None:
    model, images, ids = joint(vision, text), tiny_images(2), tokens()
    clip = cliplens.wrap(model)
    with torch.no_grad():
        image = embedding(model.get_image_features(pixel_values=images), "image_embeds")
        caption = embedding(model.get_text_features(input_ids=ids), "text_embeds")
        for got, wanted in (
            (clip.encode_image(images), image),
            (clip.run_with_cache(images, None)[1]["vision.hook_projected"][:, 0], image),
            (clip.encode_text(ids), caption),
        ):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


ENCODERS: dict[str, Callable[[], Any]] = {
    "text": lambda: transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT, projection_dim=16)),
    "projected text": lambda: transformers.CLIPTextModelWithProjection(
        transformers.CLIPTextConfig(**TEXT, projection_dim=16)
    ),
    "old end token": lambda: transformers.CLIPTextModel(transformers.CLIPTextConfig(**{**TEXT, "eos_token_id": 2})),
    "images": lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION, projection_dim=16)),
    "projected images": lambda: transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**VISION, projection_dim=16)
    ),
    "SigLIP images": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION)),
    "SigLIP text": lambda: transformers.SiglipTextModel(
        transformers.SiglipTextConfig(**{**TEXT, "eos_token_id": 1}, projection_size=32)
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("which", ENCODERS)
@pytest.mark.parametrize("how", ["object", "folder"])
def test_one_encoder_opens_as_a_model_with_one_tower(which: str, how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ENCODERS[which]().eval()
    is_text = "text" in which or "token" in which
    inputs = tokens() if is_text else tiny_images(2)
    with torch.no_grad():
        answer = model(**{"input_ids" if is_text else "pixel_values": inputs})
        wanted = embedding(answer, "text_embeds" if is_text else "image_embeds")
    name = f"hf:{tmp_path}/{'text_encoder' if is_text else 'image_encoder'}"
    model.save_pretrained(name.removeprefix("hf:"))
    clip = cliplens.wrap(model) if how == "object" else cliplens.load(name, device="cpu")
    tower = clip.text if is_text else clip.vision
    assert list(clip.towers) == ["text" if is_text else "vision"]
    assert tower is not None
    with torch.no_grad():
        torch.testing.assert_close(tower(inputs), wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tower.run_with_cache(inputs)[0], wanted, rtol=1e-4, atol=1e-5)
    assert clip.device == torch.device("cpu")
    other = clip.encode_image if is_text else clip.encode_text
    with pytest.raises(InputError, match="Expected a model with a"):
        other(inputs)


def test_the_parts_of_a_pipeline_are_found_beside_the_encoder(tmp_path: Path) -> None:
    ENCODERS["projected images"]().save_pretrained(tmp_path / "image_encoder")
    options = {key: value for key, value in USUAL.items() if key != "image_processor_type"}
    transformers.CLIPImageProcessor(**options).save_pretrained(tmp_path / "feature_extractor")
    clip = cliplens.load(f"hf:{tmp_path}/image_encoder", device="cpu")
    assert "0.48" in clip.identity.preprocess


def lora(model: nn.Module) -> nn.Module:
    made = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "fc1", "out_proj"]))
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.3)
    return made


def norms(model: Any) -> Any:
    parametrizations.weight_norm(model.vision_model.encoder.layers[0].mlp.fc1)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [lora, lambda m: lora(m).base_model.model, norms], ids=["peft", "inside", "norms"])
def test_effective_weights_are_copied(change: Callable[[Any], Any]) -> None:
    changed = change(joint())
    model, images = getattr(changed, "base_model", changed), tiny_images(2)
    inner = getattr(model, "model", model) if not hasattr(model, "get_image_features") else model
    with torch.no_grad():
        wanted = embedding(inner.get_image_features(pixel_values=images), "image_embeds")
        got = cliplens.wrap(changed).vision.run_with_cache(images)[0]  # type: ignore[union-attr]
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
        again = embedding(inner.get_image_features(pixel_values=images), "image_embeds")
    assert torch.equal(again, wanted)


def test_an_object_changed_in_code_is_refused() -> None:
    model = joint()
    attention = model.vision_model.encoder.layers[0].self_attn
    stock = attention.forward
    attention.forward = lambda *given, **named: (stock(*given, **named)[0] / 2, None)
    with pytest.raises(MismatchError, match=r"layers\.0\.self_attn is a CLIPAttention whose forward was replaced"):
        cliplens.wrap(model)


def test_forward_hooks_are_not_lost() -> None:
    model = joint()
    model.text_model.encoder.layers[0].register_forward_hook(lambda module, given, out: None)
    with pytest.raises(MismatchError, match=r"layers\.0 is a CLIPEncoderLayer with forward or backward hooks of yours"):
        cliplens.wrap(model)


def test_an_unknown_activation_is_refused() -> None:
    model = joint()
    model.config.vision_config.hidden_act = "no_such_act"
    with pytest.raises(MismatchError, match="no_such_act"):
        cliplens.wrap(model)
