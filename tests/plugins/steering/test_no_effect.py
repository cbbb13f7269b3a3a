"""An edit that cannot have an effect is refused or warned about, on real pipelines and models."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from cliplens import edits as ed
from cliplens.errors import InputError, NoEffectError
from cliplens_plugins import steering as s
from support import tiny_pipelines as tiny
from support import tiny_variants as variants
from support.tiny_dictionaries import tiny_dictionary

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


WINDOWED: dict[str, tuple[Callable[[], Any], Callable[[Any], np.ndarray], str, int]] = {
    "SD3": (tiny.stable_diffusion_3, drawn, "text.hook_embedding", tiny.EMBED),
    "Flux": (tiny.flux, drawn, "text.blocks.1.hook_resid_post", tiny.WIDTH),
    "ImageVariation": (
        tiny.image_variation,
        lambda p: tiny.picture(p, tiny.tiny_image(), **SIZE),
        "vision.blocks.1.hook_resid_post",
        tiny.WIDTH,
    ),
    "Kandinsky 2.2": (
        variants.kandinsky,
        lambda p: tiny.picture(p, "a red ring", prior_num_inference_steps=4, **SIZE),
        "text.hook_embedding",
        tiny.EMBED,
    ),
}


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_of_other_pipelines(name: str) -> None:
    make, run, site, width = WINDOWED[name]
    pipeline = make()
    before = run(pipeline)
    with s.steer(pipeline, steering(site, width)):
        after = run(pipeline)
    with s.steer(pipeline, steering(site, width), window=(0.0, 0.5)):
        half = run(pipeline)
    assert np.abs(half - before).max() > 1e-6
    assert np.abs(half - after).max() > 1e-6
    assert np.array_equal(run(pipeline), before)


def test_a_window_is_refused_where_the_denoiser_reads_something_computed_from_the_embedding() -> None:
    pipeline, image = variants.unclip_variation(), tiny.tiny_image()
    options = {"decoder_num_inference_steps": 2, "super_res_num_inference_steps": 2, "output_type": "np"}
    one = steering("vision.hook_embedding", tiny.EMBED)
    with pytest.raises(InputError, match="leave the window out"), s.steer(pipeline, one, window=(0.5, 1.0)):
        pipeline(image, generator=torch.Generator().manual_seed(0), **options)
    with (
        pytest.raises(InputError, match="prior and decoder"),
        s.steer(variants.unclip(), steering("text.hook_embedding", tiny.EMBED), window=(0.0, 0.5)),
    ):
        pass


@torch.no_grad()
def test_negative_prompts_of_kandinsky_stay_as_they_are() -> None:
    """Its prior encodes prompt and negative prompt in one batch."""
    pipeline = variants.kandinsky_prior()
    seen: list[torch.Tensor] = []
    pipeline.prior.register_forward_pre_hook(lambda _, a, k: seen.append(k["proj_embedding"]), with_kwargs=True)
    given = {
        "negative_prompt": ["a blue disc"],
        "num_inference_steps": 2,
        "generator": torch.Generator().manual_seed(0),
    }
    pipeline(["a red ring"], **given)
    with s.steer(pipeline, steering("text.hook_embedding", tiny.EMBED)):
        pipeline(["a red ring"], **given)
    plain, steered = seen[0], seen[-1]
    moved = [not torch.equal(a, b) for a, b in zip(plain, steered, strict=True)]
    assert moved == [False, False, True, False], "two negative prompts for guidance, the prompt, the negative prompt"


def counted(module: torch.nn.Module, calls: list[str], name: str) -> None:
    """Count how often a module really computes: hooks on it also see outputs that are kept from an earlier pass."""
    forward = module.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return forward(*args, **kwargs)

    module.__dict__["forward"] = counting


def test_the_first_call_computes_layers_before_the_site_and_other_encoders_once() -> None:
    pipeline = tiny.flux()
    calls: list[str] = []
    layers = pipeline.text_encoder.text_model.encoder.layers if hasattr(pipeline.text_encoder, "text_model") else None
    layers = pipeline.text_encoder.encoder.layers if layers is None else layers
    for name, module in {"before": layers[0], "after": layers[2], "T5": pipeline.text_encoder_2}.items():
        counted(module, calls, name)
    with s.steer(pipeline, steering("text.blocks.1.hook_resid_post")) as movement:
        drawn(pipeline)
        assert [calls.count(name) for name in ("before", "after", "T5")] == [1, 2, 1]
        assert movement.conditioning > 0
        drawn(pipeline)
    assert [calls.count(name) for name in ("before", "after", "T5")] == [2, 3, 2], "later calls run once"


@pytest.mark.parametrize(
    ("make", "site", "window", "first", "later"),
    [
        (tiny.stable_diffusion, "text.blocks.1.hook_resid_post", None, (0, 1), (0, 0)),
        (tiny.stable_diffusion, "text.blocks.1.hook_resid_post", (0.0, 0.5), (0, 1), (0, 1)),
        (tiny.stable_diffusion_3, "text.hook_embedding", None, (0, 0), (0, 0)),
        (tiny.stable_diffusion_3, "text.hook_embedding", (0.0, 0.5), (0, 0), (0, 0)),
    ],
)
def test_no_layer_computes_the_same_thing_twice(
    make: Callable[[], Any], site: str, window: Any, first: tuple[int, int], later: tuple[int, int]
) -> None:
    """Beyond the stock calls: before the site nothing, after it one more call where both activations are needed."""
    pipeline = make()
    calls: list[str] = []
    encoder = getattr(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    counted(encoder.encoder.layers[0], calls, "before")
    counted(encoder.encoder.layers[2], calls, "after")

    def more_than(stock: list[int] | None) -> tuple[int, ...]:
        calls.clear()
        drawn(pipeline)
        now = [calls.count(name) for name in ("before", "after")]
        return tuple(n - s for n, s in zip(now, stock or [0, 0], strict=True))

    stock = list(more_than(None))
    with s.steer(pipeline, steering(site, tiny.WIDTH if "blocks" in site else tiny.EMBED), window=window):
        assert [more_than(stock) for _ in range(3)] == [first, later, later]


def test_models_that_answer_compute_layers_before_the_site_once() -> None:
    model, inputs = tiny.llava(), tiny.llava_inputs()
    calls: list[str] = []
    tower = model.model.vision_tower
    layers = (tower.vision_model if hasattr(tower, "vision_model") else tower).encoder.layers
    counted(layers[0], calls, "before")
    with s.steer(model, steering("vision.blocks.1.hook_resid_post")):
        first = logits(model, inputs)
        assert len(calls) == 1
        assert torch.equal(logits(model, inputs), first)


@pytest.mark.parametrize("dose", [1.0, 3.0])
def test_the_control_moves_as_far_in_another_direction(dose: float) -> None:
    acts = torch.randn(2, 5, tiny.WIDTH, generator=torch.Generator().manual_seed(0))
    one = steering("text.blocks.1.hook_resid_post").at_dose(dose)
    moved, random = one(acts, "text") - acts, s.RandomControl(one)(acts, "text") - acts
    torch.testing.assert_close(random.norm(dim=-1), moved.norm(dim=-1))
    assert torch.nn.functional.cosine_similarity(moved, random, dim=-1).abs().max() < 0.6
    assert torch.equal(s.RandomControl(one.at_dose(0.0))(acts, "text"), acts)
