"""Steering real diffusers pipelines, tiny and random: the conditioning by arithmetic, the picture at the end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cliplens import edits as ed
from cliplens.errors import InputError, MismatchError, UnknownNameError
from cliplens_plugins import steering as s
from support import tiny_pipelines as tiny
from support.tiny_dictionaries import tiny_dictionary

pytest.importorskip("diffusers", reason="steering pipelines needs the extra [diffusion]")

SIZE = {"height": 32, "width": 32}
PROMPT = "a red ring"


@pytest.fixture(scope="module")
def sd() -> Any:
    return tiny.stable_diffusion()


@pytest.fixture(scope="module")
def xl() -> Any:
    return tiny.stable_diffusion_xl()


@pytest.fixture(scope="module")
def unclip() -> Any:
    return tiny.stable_unclip()


@pytest.fixture(scope="module")
def unclip_image() -> Any:
    return tiny.stable_unclip_img2img()


@pytest.fixture(scope="module")
def ip() -> Any:
    return tiny.ip_adapter()


def text_steering(
    hook: str = "blocks.1.hook_resid_post", width: int = tiny.WIDTH, dose: float = 1.0
) -> ed.LatentSteering:
    dictionary = tiny_dictionary(width, 64, sites=(f"text.{hook}",))
    return ed.LatentSteering(dictionary, [ed.ablate(range(10)), ed.add([20], 3.0)], dose=dose)


def image_steering(hook: str = "hook_projected", dose: float = 1.0) -> ed.LatentSteering:
    width = tiny.WIDTH if hook.startswith("blocks") else tiny.EMBED
    return ed.LatentSteering(tiny_dictionary(width, 64, sites=(f"vision.{hook}",)), [ed.add([20], 3.0)], dose=dose)


def state_of(pipeline: Any) -> tuple[Any, ...]:
    """All that steering could leave behind: attributes, hooks."""
    modules = [p for p in pipeline.components.values() if isinstance(p, torch.nn.Module)]
    return sorted(vars(pipeline)), [_of_module(m) for part in modules for m in part.modules()]


def _of_module(module: torch.nn.Module) -> tuple[Any, ...]:
    # transformers keeps hooks and a mark of its own, which never leave once hidden states were asked for.
    hooks = [h for h in module._forward_hooks.values() if "output_capturing" not in getattr(h, "__qualname__", "")]
    names = sorted(set(vars(module)) - {"_output_capturing_hooks_installed"})
    return len(hooks), len(module._forward_pre_hooks), names


RUNS: dict[str, tuple[str, Callable[..., np.ndarray], Callable[..., ed.LatentSteering]]] = {
    "Stable Diffusion": ("sd", lambda p, **k: tiny.picture(p, PROMPT, **SIZE, **k), text_steering),
    "Stable Diffusion XL": ("xl", lambda p, **k: tiny.picture(p, PROMPT, **SIZE, **k), text_steering),
    "StableUnCLIPPipeline": (
        "unclip",
        lambda p, **k: tiny.picture(p, PROMPT, prior_num_inference_steps=2, **SIZE, **k),
        image_steering,
    ),
    "StableUnCLIPImg2ImgPipeline": (
        "unclip_image",
        lambda p, **k: tiny.picture(p, tiny.tiny_image(), PROMPT, **SIZE, **k),
        image_steering,
    ),
    "IP-Adapter": (
        "ip",
        lambda p, **k: tiny.picture(p, PROMPT, ip_adapter_image=tiny.tiny_image(), **SIZE, **k),
        image_steering,
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_dose_0_is_bit_identical_an_edit_moves_the_picture_and_nothing_is_left(
    name: str, request: pytest.FixtureRequest
) -> None:
    fixture, run, make = RUNS[name]
    pipeline = request.getfixturevalue(fixture)
    stock = run(pipeline)
    before = state_of(pipeline)
    with s.steer(pipeline, make(dose=0.0)):
        assert np.array_equal(run(pipeline), stock)
    with s.steer(pipeline, make()):
        steered = run(pipeline)
        assert np.array_equal(run(pipeline), steered), "the same seed gives the same picture"
    with s.steer(pipeline, make(dose=2.0)):
        further = run(pipeline)
    assert np.abs(steered - stock).max() > 1e-4
    assert not np.array_equal(further, steered)
    assert state_of(pipeline) == before
    assert np.array_equal(run(pipeline), stock), "the pipeline is what it was"


@pytest.mark.parametrize("name", RUNS)
def test_an_error_inside_leaves_nothing_behind(name: str, request: pytest.FixtureRequest) -> None:
    fixture, _, make = RUNS[name]
    pipeline = request.getfixturevalue(fixture)
    before = state_of(pipeline)
    with pytest.raises(RuntimeError, match="on purpose"), s.steer(pipeline, make(), window=(0.0, 0.5)):
        raise RuntimeError("on purpose")
    assert state_of(pipeline) == before


@contextmanager
def conditioning(pipeline: Any) -> Iterator[list[dict[str, Any]]]:
    """What the denoiser was given at each step."""
    seen: list[dict[str, Any]] = []
    handle = pipeline.unet.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append({**kwargs, "timestep": kwargs.get("timestep", args[1:2])}), with_kwargs=True
    )
    try:
        yield seen
    finally:
        handle.remove()


def hidden(encoder: Any, ids: Tensor, edit: Callable[[int, Tensor], Tensor]) -> Tensor:
    """The text encoder written out: embeddings, layers, an edit after each, final norm."""
    from transformers.masking_utils import create_causal_mask

    inner = getattr(encoder, "text_model", encoder)
    stream = inner.embeddings(input_ids=ids)
    mask = create_causal_mask(config=inner.config, inputs_embeds=stream, attention_mask=None, past_key_values=None)
    for n, layer in enumerate(inner.encoder.layers):
        stream = edit(n, layer(stream, mask, is_causal=True))
    final: Tensor = inner.final_layer_norm(stream)
    return final


@torch.no_grad()
def test_the_prompt_is_conditioned_as_the_arithmetic_says_and_the_negative_prompt_is_not(sd: Any) -> None:
    steering = text_steering()
    ids = sd.tokenizer([PROMPT], padding="max_length", return_tensors="pt").input_ids
    empty = sd.tokenizer([""], padding="max_length", return_tensors="pt").input_ids
    expected = hidden(sd.text_encoder, ids, lambda n, x: steering(x, "text") if n == 1 else x)
    with s.steer(sd, steering), conditioning(sd) as seen:
        tiny.picture(sd, PROMPT, **SIZE)
    negative, positive = seen[0]["encoder_hidden_states"].chunk(2)
    torch.testing.assert_close(positive, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(negative, hidden(sd.text_encoder, empty, lambda _, x: x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_both_encoders_of_xl_and_the_layer_it_reads(xl: Any) -> None:
    """XL reads hidden_states[-2]: an edit at that very layer must be in what it reads, on the first call and later."""
    one = text_steering("blocks.1.hook_resid_post", tiny.WIDTH)
    two = text_steering("blocks.1.hook_resid_post", tiny.WIDTH_2)
    with conditioning(xl) as seen:
        tiny.picture(xl, PROMPT, **SIZE)
    plain = seen[0]["encoder_hidden_states"].chunk(2)[1]
    for _ in range(2):
        with s.steer(xl, one), s.steer(xl, two), conditioning(xl) as seen:
            tiny.picture(xl, PROMPT, **SIZE)
        found = seen[0]["encoder_hidden_states"].chunk(2)[1]
        expected = torch.cat([one(plain[..., : tiny.WIDTH], "text"), two(plain[..., tiny.WIDTH :], "text")], dim=-1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert seen[0]["added_cond_kwargs"]["text_embeds"].shape == (2, tiny.EMBED)


@torch.no_grad()
@pytest.mark.parametrize("outer", [0, 1])
@pytest.mark.parametrize("window", [None, (0.0, 0.5)])
def test_two_sites_of_one_encoder_in_nested_contexts(sd: Any, outer: int, window: tuple[float, float] | None) -> None:
    """Each context may encode the prompt twice; both edits must be in what the denoiser gets, on every call."""
    layers = (0, 1) if outer == 0 else (1, 0)
    first, second = (text_steering(f"blocks.{layer}.hook_resid_post") for layer in layers)
    of_layer = dict(zip(layers, (first, second), strict=True))
    ids = sd.tokenizer([PROMPT], padding="max_length", return_tensors="pt").input_ids
    expected = hidden(sd.text_encoder, ids, lambda n, x: of_layer[n](x, "text") if n in of_layer else x)
    with s.steer(sd, first, window=window), s.steer(sd, second):
        for _ in range(2):
            with conditioning(sd) as seen:
                tiny.picture(sd, PROMPT, **SIZE)
            found = seen[0]["encoder_hidden_states"].chunk(2)[1]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("hook", ["hook_projected", "hook_embedding"])
def test_the_image_embedding_is_moved_before_the_noise(unclip_image: Any, hook: str) -> None:
    pipeline, steering = unclip_image, image_steering(hook)
    pixels = pipeline.feature_extractor(images=tiny.tiny_image(), return_tensors="pt").pixel_values
    embeds = pipeline.image_encoder(pixels).image_embeds
    delta = 3.0 * steering.dictionary.decoder[20]
    expected = embeds + (delta if hook == "hook_projected" else delta * embeds.norm())
    with s.steer(pipeline, steering), conditioning(pipeline) as seen:
        tiny.picture(pipeline, tiny.tiny_image(), PROMPT, noise_level=0, **SIZE)
    generator = torch.Generator().manual_seed(0)
    noised = pipeline.noise_image_embeddings(expected, noise_level=torch.tensor([0]), generator=generator)
    torch.testing.assert_close(seen[0]["class_labels"].chunk(2)[1], noised, rtol=1e-4, atol=1e-5)
    assert not seen[0]["class_labels"].chunk(2)[0].any(), "guidance compares with no image at all, as before"


@torch.no_grad()
@pytest.mark.parametrize("name", RUNS)
def test_a_window_in_time(name: str, request: pytest.FixtureRequest) -> None:
    fixture, run, make = RUNS[name]
    pipeline = request.getfixturevalue(fixture)
    with conditioning(pipeline) as plain:
        stock = run(pipeline, steps=4)
    with s.steer(pipeline, make()), conditioning(pipeline) as whole:
        steered = run(pipeline, steps=4)
    # The window's hook comes before the one that looks, so what is seen is what the denoiser got.
    with s.steer(pipeline, make(), window=(0.0, 0.5)), conditioning(pipeline) as windowed:
        half = run(pipeline, steps=4)
    with s.steer(pipeline, make(), window=(0.0, 1.0)):
        assert np.array_equal(run(pipeline, steps=4), steered)
    assert not np.array_equal(half, stock)
    assert not np.array_equal(half, steered)

    def told(step: dict[str, Any]) -> Tensor:
        added = step.get("added_cond_kwargs") or {}
        parts = [
            step["encoder_hidden_states"],
            step.get("class_labels"),
            added.get("text_embeds"),
            *added.get("image_embeds", []),
        ]
        return torch.cat([p.flatten() for p in parts if p is not None])

    for n in range(4):
        expected = whole[n] if n < 2 else plain[n]
        assert torch.equal(told(windowed[n]), told(expected))


@torch.no_grad()
def test_several_prompts_and_several_pictures_each(sd: Any) -> None:
    def run() -> np.ndarray:
        return tiny.picture(sd, [PROMPT, "a blue disc"], num_images_per_prompt=2, steps=4, **SIZE)

    stock = run()
    with s.steer(sd, text_steering(), window=(0.5, 1.0)):
        late = run()
    with s.steer(sd, text_steering()):
        always = run()
    assert stock.shape == (4, 32, 32, 3)
    assert all(np.abs(late[n] - stock[n]).max() > 0 and np.abs(late[n] - always[n]).max() > 0 for n in range(4))


@torch.no_grad()
def test_without_guidance(sd: Any) -> None:
    stock = tiny.picture(sd, PROMPT, guidance_scale=1.0, **SIZE)
    with s.steer(sd, text_steering()):
        assert not np.array_equal(tiny.picture(sd, PROMPT, guidance_scale=1.0, **SIZE), stock)


@torch.no_grad()
def test_other_pipelines_with_the_same_parts() -> None:
    pipeline = tiny.stable_diffusion("StableDiffusionImg2ImgPipeline")
    stock = tiny.picture(pipeline, PROMPT, tiny.tiny_image())
    with s.steer(pipeline, text_steering()):
        assert not np.array_equal(tiny.picture(pipeline, PROMPT, tiny.tiny_image()), stock)


@torch.no_grad()
def test_the_papers_control_mixes_a_prompt_with_a_reference_picture(unclip: Any) -> None:
    """z = z_text + alpha * mask * (z_ref - z_text); all, at alpha 1, with no error term: the reference rebuilt."""
    dictionary = tiny_dictionary(tiny.EMBED, 64, sites=("vision.hook_projected",), means=True)
    reference = torch.randn(1, tiny.EMBED, generator=torch.Generator().manual_seed(3))
    codes = dictionary.folded("image").encode(reference)
    steering = ed.LatentSteering(dictionary, [ed.swap(range(64))], reference=codes, use_error_term=False)
    with s.steer(unclip, steering), conditioning(unclip) as seen:
        tiny.picture(unclip, PROMPT, prior_num_inference_steps=2, noise_level=0, **SIZE)
    embeds = seen[0]["class_labels"].chunk(2)[1][:, : tiny.EMBED]
    scheduler = unclip.image_noising_scheduler
    kept = scheduler.alphas_cumprod[0].sqrt()
    torch.testing.assert_close(embeds / kept, dictionary.folded("image").decode(codes), rtol=0.2, atol=0.1)


def test_what_cannot_be_steered_is_refused_in_words(sd: Any) -> None:
    embeds = torch.zeros(1, tiny.CONTEXT, tiny.WIDTH)
    with pytest.raises(InputError, match="prompt_embeds, which was computed before"), s.steer(sd, text_steering()):
        sd(prompt_embeds=embeds, negative_prompt_embeds=embeds, num_inference_steps=1)
    text, late = text_steering(), (0.0, 0.2)
    for kind, words, target, steering, more in (
        (MismatchError, r"of the dictionary's width, 16, but found text_encoder 32", sd, text_steering(width=16), {}),
        (UnknownNameError, "text_encoder", sd, text, {"part": "text_encoder_2"}),
        (UnknownNameError, r"blocks\.2\.hook_resid_post", sd, text_steering("blocks.9.hook_resid_post"), {}),
        (InputError, r"0 <= from < to <= 1, but found \(0\.5, 0\.2\)", sd, text, {"window": (0.5, 0.2)}),
    ):
        with pytest.raises(kind, match=words), s.steer(target, steering, **more):
            pass
    twice = s.steer(sd, text, window=late), s.steer(sd, text, window=late)
    with pytest.raises(InputError, match="one steering window"), twice[0], twice[1]:
        pass
    assert "encode_prompt" not in vars(sd)
    assert "_cliplens_window" not in vars(sd)
