"""Models changed in code, in any mode and dtype, in wrappers: a tower follows the change or refuses it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import cliplens
from cliplens.errors import CliplensError, InputError, MismatchError
from cliplens.hooked import HookedCLIP
from cliplens.testing import fingerprint
from support.tiny import TinyTokenizer, tiny_images, tiny_model, tiny_preprocess, tiny_tokens

Change = Callable[[Any], Any]
IMAGES, TOKENS = tiny_images(3), tiny_tokens(3)
NEAR = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def wrap(model: nn.Module, **options: Any) -> HookedCLIP:
    return cliplens.wrap(model, preprocess=tiny_preprocess, tokenizer=TinyTokenizer(), **options)


def vision_blocks(model: Any) -> Any:
    return model.visual.transformer.resblocks


class Doubled(ResidualAttentionBlock):
    def forward(self, *given: Any, **named: Any) -> Tensor:
        return super().forward(*given, **named) * 2


class Quiet(ResidualAttentionBlock):
    """Does what its parent does."""


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def lora(*targets: str) -> Change:
    def change(model: nn.Module) -> None:
        inject_adapter_in_model(LoraConfig(r=2, target_modules=list(targets)), model)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.3)

    return change


def patched_attention(model: Any) -> None:
    block = vision_blocks(model)[0]
    stock = block.attention
    block.attention = lambda *given, **named: stock(*given, **named) / 2


def hook_on(path: str) -> Change:
    return lambda model: model.get_submodule(path).register_forward_hook(lambda module, given, out: out * 1.5)


def swap(path: str, made: Callable[[nn.Module], nn.Module]) -> Change:
    return lambda model: model.set_submodule(path, made(model.get_submodule(path)))


BLOCK = "visual.transformer.resblocks.0"
FOLLOWED: dict[str, Change] = {
    "LoRA on the MLP": lora("c_fc", "c_proj"),
    "weight norm": lambda m: parametrizations.weight_norm(vision_blocks(m)[0].mlp.c_fc),
    "parametrised in_proj": lambda m: parametrize.register_parametrization(
        vision_blocks(m)[0].attn, "in_proj_weight", Half()
    ),
    "parametrised out_proj": lambda m: parametrize.register_parametrization(
        m.transformer.resblocks[0].attn.out_proj, "weight", Half()
    ),
    "hook on a block": hook_on(BLOCK),
    "hook on an MLP": hook_on(f"{BLOCK}.mlp"),
    "hook on a layer of an MLP": hook_on(f"{BLOCK}.mlp.c_fc"),
    "hook on a norm": hook_on(f"{BLOCK}.ln_1"),
    "hook on the last norm": hook_on("ln_final"),
    "hook on the patch convolution": hook_on("visual.conv1"),
    "subclass that changes nothing": lambda m: setattr(vision_blocks(m)[0], "__class__", Quiet),
    "Identity norms": lambda m: [m.set_submodule(p, nn.Identity()) for p in ("visual.ln_post", "ln_final")],
    "Identity before a block": swap(f"{BLOCK}.ln_1", lambda norm: nn.Identity()),
    "RMSNorm": swap(f"{BLOCK}.ln_1", lambda norm: nn.RMSNorm(64)),
    "another activation": swap(f"{BLOCK}.mlp.gelu", lambda act: nn.SiLU()),
    "a block dropped": lambda m: setattr(m.visual.transformer, "resblocks", nn.ModuleList(list(vision_blocks(m))[:2])),
    "compiled MLP": swap(f"{BLOCK}.mlp", lambda mlp: torch.compile(mlp, backend="eager")),
}
REFUSED: dict[str, tuple[Change, str]] = {
    "LoRA on attention": (lora("attn"), "a LoRA of peft on nn.MultiheadAttention.*merge"),
    "block subclass": (lambda m: setattr(vision_blocks(m)[0], "__class__", Doubled), r"block 0 .*class Doubled of"),
    "replaced method": (patched_attention, r"block 0 .*whose attention was replaced"),
    "hook on attention": (
        lambda m: vision_blocks(m)[1].attn.register_forward_hook(lambda module, given, out: None),
        r"hooks of yours on 'transformer.resblocks.1.attn'",
    ),
    "hook on all blocks together": (hook_on("visual.transformer"), "hooks of yours on 'transformer'"),
    "hook on the encoder": (hook_on("visual"), "hooks of yours on 'the encoder'"),
    "hook on the model": (
        lambda m: m.register_forward_hook(lambda module, given, out: None),
        "hooks of yours on the CLIP itself",
    ),
    "replaced encode_image": (
        lambda m: m.__dict__.update(encode_image=lambda images, normalize=False: -m.visual(images)),
        "encode_image was replaced",
    ),
    "a layer more": (lambda m: vision_blocks(m)[0].mlp.add_module("more", nn.Linear(64, 64)), "block 0 that differs"),
    "an MLP of another kind": (swap(f"{BLOCK}.mlp", lambda mlp: nn.Linear(64, 64)), "no attribute 'c_fc'"),
    "a compiled encoder inside": (swap("visual", torch.compile), r"visual is a OptimizedModule.*`\._orig_mod`"),
    "weights on the meta device": (lambda m: m.to("meta"), "on the meta device"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FOLLOWED)
def test_changes_that_are_followed(name: str) -> None:
    model = tiny_model()
    FOLLOWED[name](model)
    model.eval()
    clip = wrap(model)
    with torch.no_grad():
        for tower, inputs, encode in (
            (clip.vision, IMAGES, model.encode_image),
            (clip.text, TOKENS, model.encode_text),
        ):
            wanted = encode(inputs)
            assert torch.equal(tower(inputs), wanted)
            torch.testing.assert_close(tower.run_with_cache(inputs)[0], wanted, rtol=1e-5, atol=1e-5)
            middle = tower.run_with_hooks(inputs, fwd_hooks=[("blocks.0.hook_resid_post", lambda x, hook: x)])
            torch.testing.assert_close(middle, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_changes_that_are_refused(name: str) -> None:
    change, words = REFUSED[name]
    model = tiny_model()
    change(model)
    with pytest.raises(InputError, match=words):
        wrap(model)


def test_the_check_can_be_left_out() -> None:
    model = tiny_model()
    patched_attention(model)
    assert wrap(model, check=False).vision(IMAGES).shape == (3, 32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lora("c_fc"), "wrap the model again"),
        (swap(f"{BLOCK}.mlp.c_fc", lambda linear: nn.Linear(64, 256)), "wrap the model again"),
        (patched_attention, "whose attention was replaced"),
        (hook_on("visual.transformer"), "hooks of yours on 'transformer'"),
    ],
)
def test_a_change_after_opening_is_noticed_at_the_next_hooked_run(change: Change, words: str) -> None:
    model = tiny_model()
    clip = wrap(model)
    clip.vision.run_with_cache(IMAGES)
    change(model)
    model.eval()
    with torch.no_grad():
        assert torch.equal(clip.vision(IMAGES), model.encode_image(IMAGES))
    with pytest.raises(MismatchError, match=words):
        clip.vision.run_with_cache(IMAGES)
    assert clip.vision.is_unhooked()


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("mode", ["eval", "train", "mixed"])
@pytest.mark.parametrize("wrapper", ["none", "compile", "DataParallel", "both"])
def test_modes_dtypes_and_wrappers(dtype: torch.dtype, mode: str, wrapper: str) -> None:
    options = {"vision": {"patch_dropout": 0.5}}
    model, stock = tiny_model(**options).to(dtype), tiny_model(**options).to(dtype)
    model.train(mode == "train")
    if mode == "mixed":
        model.transformer.train()
    outer: Any = torch.compile(model, backend="eager") if wrapper in ("compile", "both") else model
    outer = nn.DataParallel(outer) if wrapper in ("DataParallel", "both") else outer
    before, modes = fingerprint(model), [module.training for module in model.modules()]
    images = IMAGES.to(dtype)
    clip = wrap(outer)
    with torch.no_grad():
        wanted = stock.encode_image(images)
        assert torch.equal(clip.encode_image(images), wanted)
        for _ in range(2):
            got = clip.vision.run_with_cache(images)[0]
            assert (got - wanted).norm() <= NEAR[dtype] * wanted.norm()
        clip.text.run_with_cache(TOKENS)
    assert fingerprint(model) == before
    assert [module.training for module in model.modules()] == modes


def uses(clip: HookedCLIP) -> dict[str, Callable[[], object]]:
    """Everything that reads a model, and some of it failing half-way."""

    def fail(x: Tensor, hook: Any) -> None:
        raise KeyError("on purpose")

    return {
        "forward": lambda: clip(IMAGES, TOKENS),
        "captions and pictures": lambda: clip.encode_text(["ab", "c"]),
        "cache": lambda: clip.run_with_cache(IMAGES, TOKENS),
        "read": lambda: clip.vision.read(IMAGES, ["blocks.1.hook_resid_post"]),
        "stop": lambda: clip.text(TOKENS, stop_at_layer=1),
        "bank": lambda: (clip.set_text_bank(["ab", "c"]), clip.vision(IMAGES, return_type="both")),
        "failing hook": lambda: clip.run_with_hooks(IMAGES, TOKENS, fwd_hooks=[("vision.blocks.1.attn.hook_q", fail)]),
        "failing input": lambda: clip.vision(IMAGES[:, :, :5]),
        "identity": lambda: clip.identity,
        "train": clip.train,
    }


@pytest.mark.parametrize("vision", [{}, {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}], ids=["ViT", "ResNet"])
def test_the_users_object_stays_as_it_was_after_every_use(vision: dict[str, Any]) -> None:
    model = tiny_model(vision=vision).train()
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    before, grads = fingerprint(model), {name: p.requires_grad for name, p in model.named_parameters()}
    clip = wrap(model)
    for name, use in uses(clip).items():
        try:
            with torch.no_grad():
                use()
        except (KeyError, CliplensError):
            pass
        assert fingerprint(model) == before, name
        assert all(torch.equal(value, tensors[key]) for key, value in model.state_dict().items()), name
        assert {key: p.requires_grad for key, p in model.named_parameters()} == grads, name


def test_the_identity_is_that_of_the_weights_as_they_are() -> None:
    model = tiny_model()
    clip = wrap(model)
    first = clip.identity
    assert clip.identity is first
    clip.to(torch.bfloat16)
    clip.to(torch.float32)
    assert clip.identity.weights_sha256 == first.weights_sha256
    with torch.no_grad():
        model.visual.proj.mul_(2)
    assert clip.identity.weights_sha256 == wrap(model).identity.weights_sha256 != first.weights_sha256


def test_a_joint_model_without_logit_scale_says_so_where_logits_are_asked_for() -> None:
    model = tiny_model()
    del model.logit_scale
    clip = wrap(model)
    assert clip.encode_image(IMAGES).shape == (3, 32)
    with pytest.raises(InputError, match=r"Expected a joint model with `logit_scale`.*register it"):
        clip(IMAGES, TOKENS)
