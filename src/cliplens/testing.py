"""Checks for tower adapters. The adapters of cliplens and of other packages must pass the same checks.

    from cliplens.testing import check_adapter

    def test_my_adapter():
        check_adapter(MyTower(), tiny_model_of_my_family(), "vision")

`check_adapter` opens a tower and runs all checks. Each check is also a function of its own.
"""

import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cliplens.contracts import Tower
from cliplens.errors import InputError, UnknownNameError
from cliplens.hooked import HookedTower
from cliplens.sites import Side

Stock = Callable[[Tensor], Tensor]
RESIDUAL = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


class TowerCheckError(AssertionError):
    """A tower fails a check. The message names the expected and the found value, and what to correct."""


def check_adapter(
    adapter: Tower,
    model: nn.Module,
    side: Side,
    inputs: Tensor | None = None,
    *,
    no_effect: tuple[str, ...] = (),
    **renamed: Any,
) -> HookedTower:
    """Open a side of a model with an adapter, run all checks on the tower, and check that the model is unaltered.

    Args:
        adapter: the adapter.
        model: a tiny stock model with random weights, in float32 or float64.
        side: "vision" or "text".
        inputs: images or token ids; None makes random ones from `tower.cfg`.
        no_effect: prefixes of hooks whose activations do not reach the output.
        renamed: `unheard`, the old name of `no_effect`.

    Returns:
        The tower.

    Raises:
        TowerCheckError: a check fails; the message names the expected and the found value.
    """
    _demand(adapter.opens(model, side), "the adapter opens the model", f"opens(...) is False for side {side!r}")
    before = fingerprint(model)
    tower = adapter.open(model, side)
    if not isinstance(tower, HookedTower):
        raise TowerCheckError(
            f"Expected a HookedTower from {type(adapter).__name__}.open. Found {type(tower).__name__}."
        )
    check_tower(tower, inputs, no_effect=no_effect, **renamed)
    _demand(fingerprint(model) == before, "the stock model is unaltered", "its modules, attributes, hooks or weights")
    return tower


def check_tower(
    tower: HookedTower,
    inputs: Tensor | None = None,
    *,
    stock: Stock | None = None,
    no_effect: tuple[str, ...] = (),
    **renamed: Any,
) -> None:
    """Run all checks on a tower, in float32 or float64.

    Args:
        tower: a tower of a tiny model with random weights.
        inputs: images or token ids; None makes them from `tower.cfg`.
        stock: function that computes the stock output; None takes `tower.run_stock`.
        no_effect: prefixes of hooks whose activations do not reach the output.
        renamed: `unheard`, the old name of `no_effect`.

    Raises:
        TowerCheckError: a check fails; the message names the expected and the found value.
    """
    no_effect = _renamed(renamed, no_effect)
    inputs = example_inputs(tower) if inputs is None else inputs
    stock = stock or tower.run_stock
    unhooked_equals_stock(tower, inputs, stock)
    every_hook_fires(tower, inputs)
    hooked_equals_stock(tower, inputs, stock)
    for check in CHECKS:
        check(tower, inputs)
    writes_reach_the_output(tower, inputs, no_effect)


def _renamed(given: dict[str, Any], no_effect: tuple[str, ...]) -> tuple[str, ...]:
    """Return `no_effect`, also where it was given under its old name."""
    if given.keys() - {"unheard"}:
        raise TypeError(f"unexpected keyword arguments {sorted(given)}")
    if not given:
        return no_effect
    warnings.warn("the keyword `unheard` is now `no_effect`", DeprecationWarning, stacklevel=3)
    return tuple(given["unheard"])


def unhooked_equals_stock(tower: HookedTower, inputs: Tensor, stock: Stock) -> None:
    """Check that, with no hook active, the output equals that of the stock model bit for bit."""
    with torch.no_grad():
        _demand(torch.equal(tower(inputs), stock(inputs)), "output bitwise equal to stock with no hook", "a difference")


def hooked_equals_stock(tower: HookedTower, inputs: Tensor, stock: Stock) -> None:
    """Check that, with all hooks active, outputs agree within 1e-5 (float32) or 1e-12 (float64), also with `read`."""
    with torch.no_grad():
        out, cache = everything(tower, inputs)
        _near(out, stock(inputs), "output with every hook read")
        read = tower.read(inputs, list(tower.hook_dict))
    for name, value in read.items():
        _near(value, cache[name], f"read({name!r}) against run_with_cache")


def every_hook_fires(tower: HookedTower, inputs: Tensor) -> None:
    """Check that each hook fires once, under its own name, with its declared width."""
    with torch.no_grad():
        cache = everything(tower, inputs)[1]
    _demand(
        set(cache.keys()) == set(tower.hook_dict), "every hook fires", str(set(tower.hook_dict) - set(cache.keys()))
    )
    for name, value in cache.items():
        _demand(value.ndim >= 3, f"{name}: [batch, pos, ...]", str(list(value.shape)))
        _demand(value.shape[0] == len(inputs), f"{name}: batch first", str(list(value.shape)))
        width = tower.hook_dict[name].width
        found = value.shape[2:].numel()
        _demand(width in (None, found), f"{name}: rows of width {width}", f"{found}")


def residual_stream_adds_up(tower: HookedTower, inputs: Tensor) -> None:
    """Check that resid_mid = resid_pre + attn_out and resid_post = resid_mid + mlp_out, exactly."""
    if tower.level != "heads":
        return
    with torch.no_grad():
        cache = everything(tower, inputs)[1]
    for layer in range(tower.cfg.n_layers):
        pre, attn, mid, mlp, post = (cache[f"blocks.{layer}.{h}"] for h in RESIDUAL)
        _demand(torch.equal(mid, pre + attn), f"block {layer}: resid_mid = resid_pre + attn_out", "another sum")
        _demand(torch.equal(post, mid + mlp), f"block {layer}: resid_post = resid_mid + mlp_out", "another sum")


def writes_are_true_edits(tower: HookedTower, inputs: Tensor) -> None:
    """Check that adding v at a hook of the residual stream changes the stream by v, also after the hook."""
    if tower.level != "heads":
        return
    with torch.no_grad():
        clean = everything(tower, inputs)[1]
        for layer in {0, tower.cfg.n_layers - 1}:
            for hook in RESIDUAL:
                _check_write(tower, inputs, clean, f"blocks.{layer}", hook)


def _check_write(tower: HookedTower, inputs: Tensor, clean: Any, block: str, hook: str) -> None:
    v = torch.randn(tower.cfg.d_model, generator=torch.Generator().manual_seed(1)).to(clean[f"{block}.{hook}"])
    with tower.hooks([(f"{block}.{hook}", lambda x, hook: x + v)]):
        got = everything(tower, inputs)[1]
    where = f"{block}.{hook}"
    _near(got[where], clean[where] + v, f"the stream at {where} after adding v there")
    after = {
        "hook_resid_pre": got[f"{block}.hook_resid_mid"] - got[f"{block}.hook_attn_out"],
        "hook_attn_out": got[f"{block}.hook_resid_mid"] - got[f"{block}.hook_resid_pre"],
        "hook_resid_mid": got[f"{block}.hook_resid_post"] - got[f"{block}.hook_mlp_out"],
        "hook_mlp_out": got[f"{block}.hook_resid_post"] - got[f"{block}.hook_resid_mid"],
        "hook_resid_post": _after(tower, got, block),
    }
    _near(after[hook], clean[where] + v, f"what the block goes on with after adding v at {where}")


def _after(tower: HookedTower, cache: Any, block: str) -> Tensor:
    following = f"blocks.{int(block.rpartition('.')[2]) + 1}.hook_resid_pre"
    return cache[following if following in tower.hook_dict else f"{block}.hook_resid_post"]


def writes_reach_the_output(tower: HookedTower, inputs: Tensor, no_effect: tuple[str, ...] = ()) -> None:
    """Check that noise at any hook changes the output, and that returning the activation unchanged does not."""
    generator = torch.Generator().manual_seed(2)

    def disturb(x: Tensor, hook: Any) -> Tensor:
        return x + torch.randn(x.shape, generator=generator).abs().to(x)

    with torch.no_grad():
        clean = tower(inputs)
        for name in tower.hook_dict:
            moved = tower.run_with_hooks(inputs, fwd_hooks=[(name, disturb)])
            heard = name.startswith(no_effect) or not torch.equal(moved, clean)
            _demand(heard, f"a write at {name} reaches the output", "no change")
        same = tower.run_with_hooks(inputs, fwd_hooks=[(lambda name: True, lambda x, hook: x.clone())])
        _near(same, clean, "output after every activation was handed back unchanged")


def stopping_equals_a_truncated_forward(tower: HookedTower, inputs: Tensor) -> None:
    """Check that `stop_at_layer=L` returns the stream that enters block L, and that no later hook fires."""
    n, stack = tower.cfg.n_layers, tower.stack_name
    entry, leave = ("hook_resid_pre", "hook_resid_post") if stack == "blocks" else ("hook_out", "hook_out")
    with torch.no_grad():
        cache = everything(tower, inputs)[1]
        for stop in range(1 if stack == "stages" else 0, n + 1):
            out, got = tower.run_with_cache(inputs, stop_at_layer=stop)
            last = stop - 1 if (stop == n or stack == "stages") else stop
            want = cache[f"{stack}.{last}.{leave if last < stop else entry}"]
            _near(out, want, f"stop_at_layer={stop}")
            late = [k for k in list(got) if k.startswith(tuple(f"{stack}.{i}." for i in range(stop, n)))]
            _demand(not late, f"no hook past stop_at_layer={stop} fires", str(late[:3]))
        _near(tower(inputs, stop_at_layer=-1), tower(inputs, stop_at_layer=n - 1), "stop_at_layer=-1")


def gradients_are_the_stock_models(tower: HookedTower, inputs: Tensor) -> None:
    """Check that hooks do not change the gradient of any parameter, in float64."""
    with _as(tower, torch.float64):
        wanted = _gradients(tower, inputs)
        with tower.hooks([(lambda name: True, lambda x, hook: None)]):
            found = _gradients(tower, inputs)
    _demand(wanted.keys() == found.keys(), "gradients for the same parameters", str(wanted.keys() ^ found.keys()))
    for name, gradient in wanted.items():
        _near(found[name], gradient, f"gradient of {name}")


def _gradients(tower: HookedTower, inputs: Tensor) -> dict[str, Tensor]:
    named = {n: p for n, p in tower.named_parameters() if p.requires_grad}
    out = tower(inputs)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out)
    found = torch.autograd.grad((out * weights).sum(), list(named.values()), allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None}


def dtype_and_device_moves_work(tower: HookedTower, inputs: Tensor) -> None:
    """Check float64 (equal to stock within 1e-12), bfloat16 (finite) and, if there is one, an accelerator."""
    home = tower.device
    with torch.no_grad():
        with _as(tower, torch.float64):
            _near(everything(tower, inputs)[0], tower.run_stock(tower.checked(inputs)), "hooked output in float64")
        with _as(tower, torch.bfloat16):
            _demand(bool(everything(tower, inputs)[0].isfinite().all()), "finite outputs in bfloat16", "nan or inf")
        if torch.cuda.is_available():
            tower.to("cuda")
            _demand(everything(tower, inputs)[0].is_cuda and tower.cfg.device.type == "cuda", "outputs on cuda", "not")
            tower.to(home)


def hooks_leave_no_trace(tower: HookedTower, inputs: Tensor) -> None:
    """Check that no hook is left after a run with hooks, even if it raised an error."""

    def fail(x: Tensor, hook: Any) -> None:
        raise KeyError("on purpose")

    with torch.no_grad(), _expected(KeyError, "the hook's own error"):
        tower.run_with_hooks(inputs, fwd_hooks=[(next(iter(tower.hook_dict)), fail)])
    _demand(tower.is_unhooked(), "no hook left after a run", "hooks still there")


def bad_use_is_refused(tower: HookedTower, inputs: Tensor) -> None:
    """Check that unknown hooks, wrong inputs, layers out of range and pickling raise errors of cliplens."""
    with _expected(UnknownNameError, "an error for an unknown hook"):
        tower.run_with_cache(inputs, names_filter="blocks.0.hook_resid_pots")
    other = inputs.long() if inputs.is_floating_point() else inputs.float()
    with _expected(InputError, "an error for inputs of the other kind"):
        tower(other)
    with _expected(InputError, "an error for a layer out of range"):
        tower(inputs, stop_at_layer=tower.cfg.n_layers + 1)
    with _expected(InputError, "an error for pickling"):
        pickle.dumps(tower)


CHECKS: tuple[Callable[[HookedTower, Tensor], None], ...] = (
    residual_stream_adds_up,
    writes_are_true_edits,
    stopping_equals_a_truncated_forward,
    gradients_are_the_stock_models,
    dtype_and_device_moves_work,
    hooks_leave_no_trace,
    bad_use_is_refused,
)


def example_inputs(tower: HookedTower, batch: int = 2) -> Tensor:
    """Return random images or token ids for a tower."""
    generator = torch.Generator().manual_seed(0)
    cfg = tower.cfg
    if cfg.image_size is not None:
        return torch.randn(batch, 3, *cfg.image_size, generator=generator).to(tower.device)
    return torch.randint(1, max(cfg.d_vocab, 3), (batch, cfg.n_ctx), generator=generator).to(tower.device)


def everything(tower: HookedTower, inputs: Tensor) -> tuple[Tensor, Any]:
    """Return the output and a cache of every hook, `hook_result` included."""
    return tower.run_with_cache(inputs, names_filter=lambda name: True)


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Return a description of modules, attributes, hooks and parameters, to check that a model is unaltered."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = {
        n: (type(m), frozenset(vars(m)), m.training, *(len(getattr(m, h)) for h in hooks))
        for n, m in model.named_modules()
    }
    tensors = {n: (id(t), t.dtype, t.device, t.double().sum().item()) for n, t in model.named_parameters()}
    return {"modules": modules, "parameters": tensors, "state": tuple(model.state_dict())}


@contextmanager
def _as(tower: HookedTower, dtype: torch.dtype) -> Iterator[None]:
    """Convert the tower to another dtype for the `with` block, then restore its weights bit for bit."""
    saved = {name: value.clone() for name, value in tower.stock.state_dict().items()}
    kind = tower.cfg.dtype
    tower.to(dtype)
    try:
        yield
    finally:
        tower.to(kind)
        tower.stock.load_state_dict(saved)


def _near(found: Tensor, wanted: Tensor, what: str) -> None:
    finite = wanted.isfinite()
    same = found.shape == wanted.shape and torch.equal(found.isfinite(), finite)
    _demand(same, f"{what}: {list(wanted.shape)}, finite in the same places", f"{list(found.shape)}")
    largest = wanted[finite].abs().max().item() if finite.any() else 0.0
    off = (found.to(wanted)[finite] - wanted[finite]).abs().max().item() if finite.any() else 0.0
    tolerance = TOLERANCE.get(wanted.dtype, 1e-2) * max(1.0, largest)
    _demand(off <= tolerance, f"{what} within {tolerance:.0e}", f"off by {off:.1e}")


def _demand(kept: bool, expected: str, found: str) -> None:
    if not kept:
        raise TowerCheckError(f"Expected {expected}. Found {found}.")


@contextmanager
def _expected(error: type[Exception], what: str) -> Iterator[None]:
    try:
        yield
    except error:
        return
    raise TowerCheckError(f"Expected {what} ({error.__name__}). Found none.")
