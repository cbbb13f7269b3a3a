"""Pipelines and models that steering meets: how each is made and called, and which of its sites have an effect."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from cliplens.edits import DirectionSteering
from cliplens.errors import InputError, MismatchError, NoEffectError
from cliplens.sites import Site
from cliplens_plugins.steering import steer
from support import tiny_multimodal as models
from support import tiny_pipelines as tiny
from support import tiny_variants as variants

Call = Callable[[Any], Any]
Outcome = Literal["effect", "refused", "absent", "silent"]
IN_BLOCK = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
EMBEDDINGS = ("hook_projected", "hook_embedding")
_WIDTHS = (tiny.WIDTH, tiny.WIDTH_2, tiny.EMBED)
_SIZE = {"height": 32, "width": 32}


@dataclass(frozen=True)
class Steerable:
    """A class, how it is made tiny and called, and the parts whose sites are tried."""

    name: str
    make: Callable[[], tuple[Any, Call]]
    parts: tuple[str, ...] = ()
    """Parts of a pipeline, with `vision_tower` for the tower of a model that answers; empty for refused classes."""


def row_of(one: Steerable, in_block: tuple[str, ...] = IN_BLOCK) -> list[str]:
    """Return the rows of the table in docs/steering.md for one class, from these sites of its last two blocks."""
    torch.manual_seed(0)
    target, call = one.make()
    if not one.parts:
        return [f"| `{one.name}` | refused: {_refusal(target)} | - | - | - |"]
    plain = call(target)
    found = {part: _of_part(target, call, plain, part, in_block) for part in one.parts}
    assert np.array_equal(np.asarray(call(target)), np.asarray(plain)), "afterwards the target is as before"
    return [f"| `{one.name}` | `{part}` | {_cells(outcomes)} |" for part, outcomes in found.items()]


def outcome(target: Any, call: Call, plain: Any, site: str, part: str | None) -> Outcome:
    """Return what an edit at a site does to the output of a call."""
    for width in _WIDTHS:
        direction = 10 * torch.randn(width, generator=torch.Generator().manual_seed(0))
        where: dict[str, Any] = {} if part is None else {"part": part}
        try:
            with steer(target, DirectionSteering(direction, at=(Site.parse(site),)), **where) as movement:
                moved = call(target)
        except MismatchError:
            continue
        except InputError:  # no such site, or no such part on this side
            return "absent"
        except NoEffectError:
            return "refused"
        has_effect = movement.conditioning > 0 and not np.array_equal(np.asarray(moved), np.asarray(plain))
        return "effect" if has_effect else "silent"
    raise AssertionError(f"{site} of {part} has none of the widths {_WIDTHS}")


def _of_part(target: Any, call: Call, plain: Any, part: str, in_block: tuple[str, ...]) -> dict[str, Outcome]:
    """Return what each site of a part does: of the last two layers and of what follows them."""
    side = "text" if "text" in part else "vision"
    named = None if part == "vision_tower" else part
    layers = (tiny.LAYERS - 2, tiny.LAYERS - 1)
    hooks = [*(f"blocks.{layer}.{hook}" for layer in layers for hook in in_block), "hook_pooled", *EMBEDDINGS]
    tried = {hook: outcome(target, call, plain, f"{side}.{hook}", named) for hook in hooks}
    return {hook: what for hook, what in tried.items() if what != "absent"}


def _refusal(target: Any) -> str:
    """Return the words with which a class without a supported encoder is refused on both sides."""
    told = set()
    for side in ("text", "vision"):
        try:
            with steer(target, DirectionSteering(torch.ones(tiny.WIDTH), at=(Site(side, "hook_embedding"),))):
                return "silent"
        except InputError as error:
            told.add(error.found.partition(", ")[2])
    return " and ".join(sorted(told))


def _cells(found: dict[str, Outcome]) -> str:
    blocks = [[what for hook, what in found.items() if f"blocks.{n}." in hook] for n in range(tiny.LAYERS)]
    rest = [[what for hook, what in found.items() if hook in names] for names in (("hook_pooled",), EMBEDDINGS)]
    return " | ".join([_of_blocks([b for b in blocks if b]), *(_word(set(what)) for what in rest)])


def _of_blocks(layers: list[list[Outcome]]) -> str:
    """Return a word for the outcomes of the last two layers, each from the site before the layer to those behind it."""
    if not layers:
        return "-"
    if all(what == "effect" for layer in layers for what in layer):
        return "all"
    *before, last = layers
    read_before = all(what == "effect" for layer in before for what in layer)
    only_entry = last == ["effect", *["refused"] * (len(last) - 1)]
    return "all but the last" if read_before and only_entry else str(layers)


def _word(what: set[Outcome]) -> str:
    return {"effect": "yes", "": "-"}.get(" ".join(sorted(what)), " ".join(sorted(what)))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _pipeline(make: Callable[[], Any], *args: Any, **options: Any) -> Callable[[], tuple[Any, Call]]:
    """Return what makes a pipeline and how it is called: one step, up to the latents."""

    def call(pipeline: Any) -> Any:
        with torch.no_grad():
            given = {"num_inference_steps": 1, "output_type": "latent", **options}
            made = pipeline(*args, generator=_generator(), **given)
        return next(iter(made.values()))

    return lambda: (make(), call)


def _model(make: Callable[[], models.Made]) -> Callable[[], tuple[Any, Call]]:
    def made() -> tuple[Any, Call]:
        model, inputs = make()

        def call(target: Any) -> Any:
            with torch.no_grad():
                return target(**inputs).logits

        return model, call

    return made


_IMAGE = tiny.tiny_image()
_MASK = _IMAGE.convert("L")
_WORDS = "a red ring"
_SD, _XL = ("text_encoder",), ("text_encoder", "text_encoder_2")
_UNCLIP = {"decoder_num_inference_steps": 2, "super_res_num_inference_steps": 2, "output_type": "np"}


def _sd(kind: str, **options: Any) -> Callable[[], tuple[Any, Call]]:
    channels = {"in_channels": 8} if "Pix2Pix" in kind else {}
    return _pipeline(lambda: tiny.stable_diffusion(kind, **channels), _WORDS, **options)


def _karlo(make: Callable[[], Any], *args: Any, **options: Any) -> Callable[[], tuple[Any, Call]]:
    def call(pipeline: Any) -> Any:
        with torch.no_grad():
            return pipeline(*args, generator=_generator(), **_UNCLIP, **options).images

    return lambda: (make(), call)


PIPELINES = (
    Steerable("StableDiffusionPipeline", _sd("StableDiffusionPipeline", **_SIZE), _SD),
    Steerable("StableDiffusionImg2ImgPipeline", _sd("StableDiffusionImg2ImgPipeline", image=_IMAGE, strength=1.0), _SD),
    Steerable(
        "StableDiffusionInpaintPipeline",
        _sd("StableDiffusionInpaintPipeline", image=_IMAGE, mask_image=_MASK, strength=1.0, **_SIZE),
        _SD,
    ),
    Steerable(
        "StableDiffusionInstructPix2PixPipeline", _sd("StableDiffusionInstructPix2PixPipeline", image=_IMAGE), _SD
    ),
    Steerable("StableDiffusionControlNetPipeline", _pipeline(variants.control_net, _WORDS, image=_IMAGE, **_SIZE), _SD),
    Steerable(
        "StableDiffusionPipeline with IP-Adapter",
        _pipeline(tiny.ip_adapter, _WORDS, ip_adapter_image=_IMAGE, **_SIZE),
        ("text_encoder", "image_encoder"),
    ),
    Steerable(
        "StableDiffusionImageVariationPipeline", _pipeline(tiny.image_variation, _IMAGE, **_SIZE), ("image_encoder",)
    ),
    Steerable("LatentConsistencyModelPipeline", _pipeline(variants.latent_consistency, _WORDS, **_SIZE), _SD),
    Steerable("StableDiffusionXLPipeline", _pipeline(tiny.stable_diffusion_xl, _WORDS, **_SIZE), _XL),
    Steerable(
        "StableDiffusionXLImg2ImgPipeline",
        _pipeline(lambda: variants.xl("StableDiffusionXLImg2ImgPipeline"), _WORDS, image=_IMAGE, strength=1.0),
        _XL,
    ),
    Steerable(
        "StableDiffusionXLInpaintPipeline",
        _pipeline(
            lambda: variants.xl("StableDiffusionXLInpaintPipeline"),
            _WORDS,
            image=_IMAGE,
            mask_image=_MASK,
            strength=1.0,
            **_SIZE,
        ),
        _XL,
    ),
    Steerable("StableDiffusion3Pipeline", _pipeline(tiny.stable_diffusion_3, _WORDS, **_SIZE), _XL),
    Steerable("FluxPipeline", _pipeline(tiny.flux, _WORDS, **_SIZE), _SD),
    Steerable(
        "FluxImg2ImgPipeline",
        _pipeline(lambda: variants.flux("FluxImg2ImgPipeline"), _WORDS, image=_IMAGE, strength=1.0, **_SIZE),
        _SD,
    ),
    Steerable(
        "StableUnCLIPPipeline",
        _pipeline(tiny.stable_unclip, _WORDS, prior_num_inference_steps=2, **_SIZE),
        ("text_encoder", "prior_text_encoder", "image_embeds"),
    ),
    Steerable(
        "StableUnCLIPImg2ImgPipeline",
        _pipeline(tiny.stable_unclip_img2img, _IMAGE, _WORDS, **_SIZE),
        ("text_encoder", "image_encoder", "image_embeds"),
    ),
    Steerable("UnCLIPPipeline", _karlo(variants.unclip, _WORDS, prior_num_inference_steps=2), _SD),
    Steerable("UnCLIPImageVariationPipeline", _karlo(variants.unclip_variation, _IMAGE), ("image_encoder",)),
    Steerable(
        "KandinskyV22PriorPipeline",
        _pipeline(variants.kandinsky_prior, _WORDS, num_inference_steps=2, output_type="pt"),
        _SD,
    ),
    Steerable(
        "KandinskyV22CombinedPipeline",
        _pipeline(variants.kandinsky, _WORDS, prior_num_inference_steps=2, output_type="np", **_SIZE),
        _SD,
    ),
    Steerable(
        "StableCascadePriorPipeline",
        _pipeline(variants.stable_cascade_prior, _WORDS, num_inference_steps=2, output_type="pt", height=64, width=64),
        _SD,
    ),
)

MODELS = tuple(
    Steerable(name, _model(make), ("vision_tower",))
    for name, make in {
        "LlavaForConditionalGeneration": models.llava,
        "VipLlavaForConditionalGeneration": models.vip_llava,
        "LlavaNextForConditionalGeneration": models.llava_next,
        "LlavaOnevisionForConditionalGeneration": models.onevision,
        "SmolVLMForConditionalGeneration": models.smolvlm,
        "Idefics2ForConditionalGeneration": models.idefics2,
        "Idefics3ForConditionalGeneration": models.idefics3,
        "PaliGemmaForConditionalGeneration": models.paligemma,
        "Gemma3ForConditionalGeneration": models.gemma3,
        "Blip2ForConditionalGeneration": models.blip2,
        "InstructBlipForConditionalGeneration": models.instruct_blip,
        "Qwen2VLForConditionalGeneration": models.qwen2_vl,
        "Qwen2_5_VLForConditionalGeneration": models.qwen2_5_vl,
        "Qwen3VLForConditionalGeneration": models.qwen3_vl,
        "AyaVisionForConditionalGeneration": models.aya_vision,
    }.items()
)

REFUSED = (
    Steerable("PixArtAlphaPipeline", lambda: (variants.pixart(), repr)),
    Steerable("KandinskyV22Pipeline", lambda: (variants.kandinsky_decoder(), repr)),
    Steerable("MllamaForConditionalGeneration", lambda: (models.mllama()[0], repr)),
    Steerable("InternVLForConditionalGeneration", lambda: (models.internvl()[0], repr)),
)
ALL = (*PIPELINES, *MODELS, *REFUSED)
