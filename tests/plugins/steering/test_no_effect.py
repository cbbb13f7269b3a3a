"""An edit that cannot have an effect is refused or warned about, on real pipelines and models."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from cliplens import edits as ed
from cliplens.errors import NoEffectError, UnknownNameError
from cliplens_plugins import steering as s
from support import tiny_pipelines as tiny
from support.tiny_dictionaries import tiny_dictionary
from support.tiny_multimodal import MODELS

pytest.importorskip("diffusers", reason="steering pipelines needs the extra [diffusion]")
SIZE = {"height": 32, "width": 32}
LAST = f"blocks.{tiny.LAYERS - 1}.hook_resid_post"


def steering(site: str, width: int = tiny.WIDTH, strength: float = 5.0) -> ed.LatentSteering:
    return ed.LatentSteering(tiny_dictionary(width, 64, sites=(site,)), [ed.add([20], strength)])


def drawn(pipeline: Any, **more: Any) -> np.ndarray:
    return tiny.picture(pipeline, "a red ring", **SIZE, **more)


@torch.no_grad()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    found: torch.Tensor = model(**inputs).logits
    return found


def test_a_block_that_xl_does_not_read() -> None:
    pipeline = tiny.stable_diffusion_xl()
    with (
        pytest.raises(NoEffectError, match=rf"{LAST}.*text\.blocks\.1\.hook_resid_post"),
        s.steer(pipeline, steering(f"text.{LAST}")),
    ):
        drawn(pipeline)
    with s.steer(pipeline, steering("text.blocks.1.hook_resid_post")) as movement:
        drawn(pipeline)
    assert movement.calls == 1
    assert movement.activations > 0
    assert 0 < movement.conditioning < 10


@pytest.mark.parametrize("site", [f"vision.{LAST}", "vision.hook_pooled"])
def test_sites_that_llava_does_not_read(site: str) -> None:
    model, inputs = tiny.llava(), tiny.llava_inputs()
    with pytest.raises(NoEffectError, match="did not change"), s.steer(model, steering(site)):
        logits(model, inputs)
    before = logits(model, inputs)
    with s.steer(model, steering("vision.blocks.1.hook_resid_post")) as movement:
        after = logits(model, inputs)
    assert movement.conditioning > 0
    assert not torch.allclose(before, after)
    assert torch.equal(logits(model, inputs), before)


def test_image_embeddings_made_elsewhere() -> None:
    pipeline = tiny.ip_adapter()
    embeds = [torch.cat([torch.zeros(1, 1, tiny.EMBED), torch.ones(1, 1, tiny.EMBED)])]
    with (
        pytest.raises(NoEffectError, match="computed before, outside the steering"),
        s.steer(pipeline, steering("vision.hook_embedding", tiny.EMBED)),
    ):
        drawn(pipeline, ip_adapter_image_embeds=embeds)


@torch.no_grad()
def test_prompt_embeddings_made_inside_are_steered() -> None:
    pipeline = tiny.stable_diffusion()
    with s.steer(pipeline, steering("text.blocks.1.hook_resid_post")):
        expected = drawn(pipeline)
        positive, negative = pipeline.encode_prompt("a red ring", "cpu", 1, True)
        found = tiny.picture(pipeline, prompt_embeds=positive, negative_prompt_embeds=negative, **SIZE)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_latents_that_do_not_fire_are_warned_about() -> None:
    model, inputs = tiny.llava(), tiny.llava_inputs()
    silent = ed.LatentSteering(
        tiny_dictionary(tiny.WIDTH, 64, sites=("vision.blocks.1.hook_resid_post",)), [ed.clamp([20], low=-1.0)]
    )
    with pytest.warns(UserWarning, match="changed nothing"), s.steer(model, silent):
        logits(model, inputs)


def _wrapped(pipeline: Any) -> None:
    pipeline.text_encoder = torch.compile(pipeline.text_encoder, backend="eager")


def _in_place(pipeline: Any) -> None:
    pipeline.text_encoder.compile(backend="eager")


@pytest.mark.parametrize("compiled", [_wrapped, _in_place])
def test_a_compiled_encoder_is_steered_as_the_plain_one(compiled: Callable[[Any], None]) -> None:
    one = steering("text.blocks.1.hook_resid_post")
    plain = tiny.stable_diffusion()
    before = drawn(plain)
    with s.steer(plain, one):
        expected = drawn(plain)
    pipeline = tiny.stable_diffusion()
    compiled(pipeline)
    with s.steer(pipeline, one):
        np.testing.assert_allclose(drawn(pipeline), expected, atol=1e-5)
    state = (pipeline.text_encoder._compiled_call_impl, "_orig_mod" in pipeline.text_encoder._modules)
    assert any(state), "it is compiled as before"
    assert not np.allclose(before, expected)


PIPELINES: dict[str, tuple[Callable[[], Any], Callable[[Any], np.ndarray], str, int]] = {
    "SD3, encoder 1": (tiny.stable_diffusion_3, drawn, "text.blocks.1.hook_resid_post", tiny.WIDTH),
    "SD3, encoder 2": (tiny.stable_diffusion_3, drawn, "text.blocks.1.hook_resid_post", tiny.WIDTH_2),
    "SD3, pooled": (tiny.stable_diffusion_3, drawn, "text.hook_embedding", tiny.EMBED),
    "Flux": (tiny.flux, drawn, "text.blocks.1.hook_resid_post", tiny.WIDTH),
    "XL, pooled, no part named": (tiny.stable_diffusion_xl, drawn, "text.hook_embedding", tiny.EMBED),
    "InstructPix2Pix": (
        lambda: tiny.stable_diffusion("StableDiffusionInstructPix2PixPipeline", in_channels=8),
        lambda p: tiny.picture(p, "a red ring", image=tiny.tiny_image()),
        "text.blocks.1.hook_resid_post",
        tiny.WIDTH,
    ),
    "ImageVariation": (
        tiny.image_variation,
        lambda p: tiny.picture(p, tiny.tiny_image(), **SIZE),
        "vision.blocks.1.hook_resid_post",
        tiny.WIDTH,
    ),
    "unCLIP, inside the encoder": (
        tiny.stable_unclip_img2img,
        lambda p: tiny.picture(p, tiny.tiny_image(), **SIZE),
        "vision.blocks.1.hook_resid_post",
        tiny.WIDTH,
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_people_have(name: str) -> None:
    make, run, site, width = PIPELINES[name]
    pipeline = make()
    before = run(pipeline)
    with s.steer(pipeline, steering(site, width)) as movement:
        after = run(pipeline)
    with s.steer(pipeline, steering(site, width), window=(0.0, 0.5)):
        half = run(pipeline)
    assert movement.conditioning > 0
    assert np.abs(after - before).max() > 1e-5
    assert np.abs(half - before).max() > 1e-6
    assert np.array_equal(run(pipeline), before)


HOOKS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")


@pytest.mark.parametrize("name", MODELS)
def test_models_that_answer(name: str) -> None:
    make, pooled = MODELS[name]
    torch.manual_seed(0)
    model, inputs = make()
    before = logits(model, inputs)
    for hook in HOOKS:
        with s.steer(model, steering(f"vision.blocks.1.{hook}")) as movement:
            after = logits(model, inputs)
        assert movement.conditioning > 0, hook
        assert not torch.allclose(before, after, atol=1e-7), hook
    if pooled is None:
        with pytest.raises(UnknownNameError), s.steer(model, steering("vision.hook_pooled")):
            pass
    elif pooled:
        with s.steer(model, steering("vision.hook_pooled")) as movement:
            logits(model, inputs)
        assert movement.conditioning > 0
    else:
        with pytest.raises(NoEffectError), s.steer(model, steering("vision.hook_pooled")):
            logits(model, inputs)
    assert torch.equal(logits(model, inputs), before)
