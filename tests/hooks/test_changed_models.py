"""Models somebody changed: hooked equals un-hooked, or a refusal; and the object stays as it was."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import open_clip
import peft
import pytest
import torch
import transformers
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, parametrize, prune

import cliplens
from cliplens.errors import CliplensError, InputError, MismatchError
from support.tiny import tiny_images, tiny_model, tiny_tokens

SMALL: dict[str, Any] = {"vision": {"layers": 2, "width": 32}, "text": {"layers": 2, "width": 48}}
DTYPES = {torch.float32: 2e-5, torch.float64: 1e-9, torch.bfloat16: 8e-2}


def small(**more: Any) -> Any:
    return tiny_model(**{side: {**SMALL[side], **more.get(side, {})} for side in SMALL})


def every_block(model: Any) -> Iterator[Any]:
    yield from model.visual.transformer.resblocks
    yield from model.transformer.resblocks


def lora(model: Any, targets: list[str], *, zero: bool = False, **options: Any) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=targets, init_lora_weights=zero, **options)
    peft.inject_adapter_in_model(config, model)


def in_every_block(change: Callable[[Any], None]) -> Callable[[Any], None]:
    def to(model: Any) -> None:
        for block in every_block(model):
            change(block)

    return to


def replaced(block: Any) -> None:
    own = block.attn.forward
    block.attn.forward = lambda *given, **named: (own(*given, **named)[0] * 1.5, None)


def gated(block: Any) -> None:
    class Gated(nn.MultiheadAttention):
        gate = 1.0

        def forward(self, *given: Any, **named: Any) -> Any:
            return super().forward(*given, **named)[0] * self.gate, None

    block.attn.__class__, block.attn.gate = Gated, 1.5


class Tripled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 3 * weight


def spectral(model: Any) -> None:
    for block in every_block(model):
        parametrizations.spectral_norm(block.mlp.c_fc)


def tripled(model: Any) -> None:
    for block in every_block(model):
        parametrize.register_parametrization(block.attn, "in_proj_weight", Tripled())
    parametrize.register_parametrization(model, "text_projection", Tripled())
    parametrize.register_parametrization(model.visual, "proj", Tripled())


def pruned(model: Any) -> None:
    for block in every_block(model):
        prune.l1_unstructured(block.mlp.c_fc, "weight", amount=0.5)


def dropped(model: Any) -> None:
    for block in every_block(model):
        block.mlp.c_proj = nn.Sequential(block.mlp.c_proj, nn.Dropout(0.5))


FOLLOWED: dict[str, Callable[[Any], None]] = {
    "LoRA on MLPs": lambda m: lora(m, ["c_fc", "c_proj"], lora_dropout=0.5),
    "DoRA": lambda m: lora(m, ["c_fc"], use_dora=True),
    "spectral norm": spectral,
    "parametrisations": tripled,
    "pruned MLPs": pruned,
    "dropout": dropped,
    "hook on an MLP": lambda m: m.transformer.resblocks[0].mlp.register_forward_hook(lambda *g: 2 * g[-1]),
    "pre-hook on a block": lambda m: m.visual.transformer.resblocks[1].register_forward_pre_hook(
        lambda module, given: (given[0] * 1.3, *given[1:])
    ),
}


def with_adapter(block: Any) -> None:
    adapter = nn.Linear(block.mlp.c_proj.out_features, block.mlp.c_proj.out_features)
    block.mlp.add_module("adapter", adapter)


def with_bias_of_keys(block: Any) -> None:
    block.attn = nn.MultiheadAttention(block.attn.embed_dim, block.attn.num_heads, add_bias_kv=True, batch_first=True)


def with_a_matrix_for_layer_scale(block: Any) -> None:
    block.ls_1 = nn.Linear(block.attn.embed_dim, block.attn.embed_dim)


REFUSED: dict[str, Callable[[Any], None]] = {
    "LoRA on attention": lambda m: lora(m, ["attn"]),
    "forward of attention replaced": in_every_block(replaced),
    "subclass of attention": in_every_block(gated),
    "pre-hook on attention": lambda m: m.transformer.resblocks[0].attn.register_forward_pre_hook(lambda *g: None),
    "a layer added to an MLP": in_every_block(with_adapter),
    "attention with another option": in_every_block(with_bias_of_keys),
    "another kind of layer": in_every_block(with_a_matrix_for_layer_scale),
    "hook on the encoder": lambda m: m.visual.register_forward_hook(lambda *g: 2 * g[-1]),
    "own encode_text": lambda m: setattr(m, "encode_text", lambda text, normalize=False: torch.ones(len(text), 32)),
    "hook on the model": lambda m: m.register_forward_hook(lambda *g: (2 * g[-1][0], *g[-1][1:])),
}


def state_of(model: nn.Module) -> list[Any]:
    """All there is to see of an object: tensors, modes, hooks, gradients asked for, attributes."""
    modules = list(model.modules())
    return [
        [module.training for module in modules],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in modules],
        [sorted(vars(module)) for module in modules],
        [parameter.requires_grad for parameter in model.parameters()],
        [tensor.detach().clone() for tensor in (*model.parameters(), *model.buffers())],
    ]


def assert_alike(model: nn.Module, before: list[Any]) -> None:
    *now, tensors = state_of(model)
    assert now == before[:-1]
    assert all(torch.equal(a, b) for a, b in zip(tensors, before[-1], strict=True))


@torch.no_grad()
def everything_read(tower: Any, inputs: Tensor) -> Tensor:
    return tower.run_with_hooks(inputs, fwd_hooks=[(name, lambda acts, hook: None) for name in tower.hook_dict])


@torch.no_grad()
def gaps(clip: Any, model: Any) -> list[float]:
    """Hooked and un-hooked towers, and their logits, against the model's own methods in eval mode."""
    modes = {module: module.training for module in model.modules()}
    images, tokens = tiny_images(3).to(model.visual.conv1.weight.dtype), tiny_tokens(3)
    model.eval()
    image, text = model.encode_image(images), model.encode_text(tokens)
    first, second, scale = model(images, tokens)[:3]
    for module, mode in modes.items():
        module.training = mode
    got = [(clip.vision, images, image), (clip.text, tokens, text)]
    pairs = [(wanted, make(tower, x)) for tower, x, wanted in got for make in (lambda t, x: t(x), everything_read)]
    pairs.append((scale * first @ second.T, clip(images, tokens)))
    return [float((a - b).norm() / a.norm()) for a, b in pairs]


@pytest.mark.parametrize(
    ("name", "when"),
    [*((name, "before") for name in FOLLOWED), ("LoRA on MLPs", "after"), ("hook on an MLP", "after")],
)
def test_what_is_followed_equals_the_model_in_eval_mode(name: str, when: str) -> None:
    dtype = list(DTYPES)[list(FOLLOWED).index(name) % 2]
    model = small()
    if when == "after":
        clip = cliplens.wrap(model)
    FOLLOWED[name](model)
    model.train().to(dtype)
    before = state_of(model)
    if when == "after":
        with suppress(MismatchError):  # modules added since: "wrap the model again"
            assert max(gaps(clip, model)) <= DTYPES[dtype]
    clip = cliplens.wrap(model)
    found = gaps(clip, model)
    _ = [getattr(block.mlp, "W_in", None) for tower in (clip.vision, clip.text) for block in tower.blocks]
    _ = clip.identity
    assert max(found) <= DTYPES[dtype], found
    assert_alike(model, before)


@pytest.mark.parametrize(
    ("name", "when"),
    [
        *((name, "before") for name in REFUSED),
        ("LoRA on attention", "after"),
        ("forward of attention replaced", "after"),
        ("hook on the encoder", "after"),
        ("own encode_text", "after"),
    ],
)
def test_what_hooks_would_lose_is_refused(name: str, when: str) -> None:
    index = list(REFUSED).index(name) + (when == "after")
    dtype = [torch.float32, torch.bfloat16][index % 2]
    model = small().to(dtype)
    if when == "after":
        clip = cliplens.wrap(model)
    REFUSED[name](model.train())
    model.to(dtype)
    before = state_of(model)
    with pytest.raises(MismatchError, match=r"Expected .*, but found .*\. Fix: .*\."):
        gaps(clip if when == "after" else cliplens.wrap(model), model)
    assert [module.training for module in model.modules()].count(False) <= before[0].count(False)


def of_layer_scale(model: Any, value: float) -> None:
    for block in model.visual.transformer.resblocks:
        block.ls_1.gamma.data.fill_(value)


HIDDEN: dict[str, tuple[Callable[[Any], None], Callable[[Any], None]]] = {
    "a LoRA that is still zero": (
        lambda m: lora(m, ["attn"], zero=True),
        lambda m: [p.data.normal_() for name, p in m.named_parameters() if "lora_B" in name],
    ),
    "behind a tiny LayerScale": (
        lambda m: (
            in_every_block(replaced)(m),
            [b.ls_1.gamma.data.fill_(1e-7) for b in m.visual.transformer.resblocks],
        ),
        lambda m: [b.ls_1.gamma.data.fill_(1.0) for b in m.visual.transformer.resblocks],
    ),
    "a switch that is still off": (
        lambda m: (in_every_block(gated)(m), [setattr(b.attn, "gate", 1.0) for b in every_block(m)]),
        lambda m: [setattr(b.attn, "gate", 2.0) for b in every_block(m)],
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_change_without_effect_yet_is_noticed_before_it_has_one(name: str) -> None:
    change, awaken = HIDDEN[name]
    model = small(vision={"ls_init_value": 1.0})
    change(model)

    def use() -> None:
        clip = cliplens.wrap(model)
        awaken(model)
        gaps(clip, model)

    with pytest.raises(MismatchError):
        use()


@contextmanager
def hook_at_all_modules() -> Iterator[None]:
    handle = register_module_forward_hook(lambda m, g, out: 1.5 * out if isinstance(m, nn.LayerNorm) else None)
    yield
    handle.remove()


@contextmanager
def method_of_the_class(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    own = ResidualAttentionBlock.attention
    with monkeypatch.context() as patch:
        patch.setattr(ResidualAttentionBlock, "attention", lambda self, *g, **n: 1.1 * own(self, *g, **n))
        yield


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["every module", "class"])
def test_changes_made_for_all_models_are_seen(what: str, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    clip = cliplens.wrap(model)
    with hook_at_all_modules() if what == "every module" else method_of_the_class(monkeypatch):
        try:
            found = gaps(cliplens.wrap(model) if when == "before" else clip, model)
        except MismatchError:
            found = [0.0]
    assert max(found) <= 2e-5
    assert max(gaps(clip, model)) <= 2e-5


def test_a_subclass_that_adds_to_the_encoders_is_refused_and_one_that_does_not_is_taken() -> None:
    model = small()

    class Flipped(open_clip.CLIP):
        def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
            return super().encode_image(image.flip(-1), normalize)

    class WithLoss(open_clip.CLIP):
        def loss(self) -> Tensor:
            return self.logit_scale

    model.__class__ = WithLoss
    assert max(gaps(cliplens.wrap(model), model)) <= 2e-5
    model.__class__ = Flipped
    with pytest.raises(MismatchError, match="encode_image gives something else"):
        cliplens.wrap(model)
    assert cliplens.wrap(model, check=False).vision is not None


@pytest.mark.parametrize("name", ["text_projection", "positional_embedding", "attn_mask"])
def test_tensors_put_in_the_place_of_others_are_read(name: str) -> None:
    model = small()
    clip = cliplens.wrap(model)
    before = clip.identity
    other = 0.5 * getattr(model, name).detach().clone()
    if name == "attn_mask":
        model.attn_mask = torch.zeros_like(other)
    else:
        setattr(model, name, nn.Parameter(other))
    assert max(gaps(clip, model)) <= 2e-5
    assert (clip.identity != before) == (name != "attn_mask")
    model.load_state_dict(tiny_model(seed=3, **SMALL).state_dict(), assign=True)
    assert max(gaps(clip, model)) <= 2e-5


@pytest.mark.parametrize("name", ["visual", "transformer", "ln_final"])
def test_encoders_put_in_the_place_of_others_are_refused(name: str) -> None:
    model = small()
    clip = cliplens.wrap(model)
    setattr(model, name, getattr(small(), name))
    with pytest.raises(MismatchError, match=f"another '{name}'"):
        clip(tiny_images(), tiny_tokens())


def test_threads_share_a_model_in_training_mode() -> None:
    model = small(vision={"patch_dropout": 0.5}).train()
    clip, images = cliplens.wrap(model), tiny_images(3)
    wanted, wrong = clip.vision(images), []

    def run() -> None:
        with torch.no_grad():
            wrong.extend(n for n in range(25) if not torch.allclose(clip.vision(images), wanted, atol=1e-4))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(module.training for module in model.modules())


def compiled_block(model: Any) -> nn.Module:
    model.visual.transformer.resblocks[1] = torch.compile(model.visual.transformer.resblocks[1], backend="eager")
    return model


def compiled_encoder(model: Any) -> nn.Module:
    model.visual = torch.compile(model.visual, backend="eager")
    return model


def inside(model: Any) -> nn.Module:
    return nn.Sequential(nn.Identity(), nn.ModuleDict({"clip": model}))


def with_experts(model: Any) -> nn.Module:
    model.visual.transformer.resblocks[0].mlp = nn.Bilinear(2, 2, 2)
    return model


def quantised(model: Any) -> nn.Module:
    warnings.filterwarnings("ignore", message="torch.quantize|.*quantize_dynamic")
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def with_norm_of_patches(model: Any) -> nn.Module:
    model.visual.conv1 = nn.Sequential(model.visual.conv1, nn.BatchNorm2d(32))
    return model


UNUSABLE: dict[str, tuple[Callable[[Any], nn.Module], str]] = {
    "a compiled block": (compiled_block, r"model\.visual\.transformer\.resblocks\[1\]\._orig_mod"),
    "a compiled encoder": (compiled_encoder, r"model\.visual = model\.visual\._orig_mod"),
    "a model inside another": (inside, r"cliplens\.wrap\(model\[1\]\.clip\)"),
    "another stem": (with_norm_of_patches, "put together as CLIP puts it together"),
    "another MLP": (with_experts, "put together as CLIP puts it together"),
    "quantised weights": (quantised, "load it without quantisation"),
    "no weights": (lambda m: m.to("meta"), "load the model without offloading"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_models_that_cannot_be_opened_are_refused_with_the_way_on(name: str) -> None:
    change, words = UNUSABLE[name]
    with pytest.raises(CliplensError, match=words):
        cliplens.wrap(change(small()))


@pytest.mark.parametrize(
    ("side", "inputs", "found"),
    [
        ("vision", torch.zeros(0, 3, 32, 32), r"\[0, 3, 32, 32\]"),
        ("text", torch.zeros(0, 8, dtype=torch.long), "no captions"),
        ("text", torch.full((2, 8), 49), "ids from 49 to 49"),
        ("text", torch.full((2, 8), -1), "ids from -1 to -1"),
    ],
)
def test_inputs_no_encoder_can_read_are_refused(side: str, inputs: Tensor, found: str) -> None:
    with pytest.raises(InputError, match=found):
        getattr(cliplens.wrap(small()), side)(inputs)


def test_a_changed_siglip2_is_compared_too() -> None:
    shared = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Siglip2Config(
        vision_config={**shared, "num_patches": 4, "patch_size": 8},
        text_config={**shared, "vocab_size": 32, "max_position_embeddings": 8},
    )
    model = transformers.Siglip2Model(config).eval()
    cliplens.wrap(model)
    own = model.get_image_features

    class Doubled(transformers.Siglip2Model):
        def get_image_features(self, *given: Any, **named: Any) -> Any:
            return 2 * own(*given, **named).pooler_output

    model.__class__ = Doubled
    with pytest.raises(MismatchError, match="the same embeddings as a copy of its weights"):
        cliplens.wrap(model)
