"""The checks of hooked towers, one function each."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cliplens.errors import InputError, UnknownNameError
from cliplens.hooked import HookedTower
from cliplens.shapes import TowerInputs
from cliplens.testing.comparing import check, near, raises

Stock = Callable[[Tensor], Tensor]
RESIDUAL = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")


def unhooked_equals_stock(tower: HookedTower, inputs: TowerInputs, stock: Stock) -> None:
    """Check that, with no hook active, the output equals that of the stock model bit for bit."""
    with torch.no_grad():
        check(
            torch.equal(tower(inputs), stock(inputs)),
            expected="output bitwise equal to stock with no hook",
            found="a difference",
            fix="call the stock module in run_stock, and in every forward without an active hook",
        )


def hooked_equals_stock(tower: HookedTower, inputs: TowerInputs, stock: Stock) -> None:
    """Check that, with all hooks active, outputs agree within 1e-5 (float32) or 1e-12 (float64), also with `read`."""
    with torch.no_grad():
        out, cache = everything(tower, inputs)
        near(out, stock(inputs), "output with every hook active")
        read = tower.read(inputs, list(tower.hook_dict))
    for name, value in read.items():
        near(value, cache[name], f"read({name!r}) against run_with_cache")


def every_hook_fires(tower: HookedTower, inputs: TowerInputs) -> None:
    """Check that each hook fires once, under its own name, with its declared width."""
    with torch.no_grad():
        cache = everything(tower, inputs)[1]
    silent = sorted(set(tower.hook_dict) - set(cache.keys()))
    check(
        not silent,
        expected="a forward pass in which every hook fires",
        found=f"no activation at {', '.join(silent[:5])}",
        fix="pass the activation through the hook point, or remove the hook point",
    )
    for name, value in cache.items():
        check(
            value.ndim >= 3 and value.shape[0] == len(inputs),
            expected=f"activations [{len(inputs)}, pos, ...] at {name}",
            found=f"shape {list(value.shape)}",
            fix="put the batch first and the positions second (call_hook adds a position axis)",
        )
        width = tower.hook_dict[name].width
        found = value.shape[2:].numel()
        check(
            width in (None, found),
            expected=f"rows of width {width} at {name}, as declared",
            found=f"width {found}",
            fix="correct the width passed to hook_point",
        )


def residual_stream_adds_up(tower: HookedTower, inputs: TowerInputs) -> None:
    """Check that resid_mid = resid_pre + attn_out and resid_post = resid_mid + mlp_out, exactly."""
    if tower.level != "heads":
        return
    with torch.no_grad():
        cache = everything(tower, inputs)[1]
    for layer in range(tower.cfg.n_layers):
        pre, attn, mid, mlp, post = (cache[f"blocks.{layer}.{h}"] for h in RESIDUAL)
        for whole, a, b, equation in (
            (mid, pre, attn, "resid_mid = resid_pre + attn_out"),
            (post, mid, mlp, "resid_post = resid_mid + mlp_out"),
        ):
            check(
                torch.equal(whole, a + b),
                expected=f"{equation} in block {layer}",
                found="another sum",
                fix="add exactly the hooked outputs to the stream, or use level = 'blocks'",
            )


def writes_are_true_edits(tower: HookedTower, inputs: TowerInputs) -> None:
    """Check that adding v at a hook of the residual stream changes the stream by v, also after the hook."""
    if tower.level != "heads":
        return
    with torch.no_grad():
        clean = everything(tower, inputs)[1]
        for layer in {0, tower.cfg.n_layers - 1}:
            for hook in RESIDUAL:
                _check_write(tower, inputs, clean, f"blocks.{layer}", hook)


def _check_write(tower: HookedTower, inputs: TowerInputs, clean: Any, block: str, hook: str) -> None:
    v = torch.randn(tower.cfg.d_model, generator=torch.Generator().manual_seed(1)).to(clean[f"{block}.{hook}"])
    with tower.hooks([(f"{block}.{hook}", lambda x, hook: x + v)]):
        got = everything(tower, inputs)[1]
    where = f"{block}.{hook}"
    near(got[where], clean[where] + v, f"the stream at {where} after adding v there")
    after = {
        "hook_resid_pre": got[f"{block}.hook_resid_mid"] - got[f"{block}.hook_attn_out"],
        "hook_attn_out": got[f"{block}.hook_resid_mid"] - got[f"{block}.hook_resid_pre"],
        "hook_resid_mid": got[f"{block}.hook_resid_post"] - got[f"{block}.hook_mlp_out"],
        "hook_mlp_out": got[f"{block}.hook_resid_post"] - got[f"{block}.hook_resid_mid"],
        "hook_resid_post": _after(tower, got, block),
    }
    near(after[hook], clean[where] + v, f"what the block goes on with after adding v at {where}")


def _after(tower: HookedTower, cache: Any, block: str) -> Tensor:
    following = f"blocks.{int(block.rpartition('.')[2]) + 1}.hook_resid_pre"
    return cache[following if following in tower.hook_dict else f"{block}.hook_resid_post"]


def writes_reach_the_output(tower: HookedTower, inputs: TowerInputs, no_effect: tuple[str, ...] = ()) -> None:
    """Check that noise at any hook changes the output, and that returning the activation unchanged does not."""
    generator = torch.Generator().manual_seed(2)

    def disturb(x: Tensor, hook: Any) -> Tensor:
        return x + torch.randn(x.shape, generator=generator).abs().to(x)

    with torch.no_grad():
        clean = tower(inputs)
        for name in tower.hook_dict:
            moved = tower.run_with_hooks(inputs, fwd_hooks=[(name, disturb)])
            check(
                name.startswith(no_effect) or not torch.equal(moved, clean),
                expected=f"an output that changes with the activation at {name}",
                found="no change",
                fix="use the value that the hook point returns, or list the hook in no_effect",
            )
        same = tower.run_with_hooks(inputs, fwd_hooks=[(lambda name: True, lambda x, hook: x.clone())])
        near(same, clean, "output after every activation was handed back unchanged")


def stopping_equals_a_truncated_forward(tower: HookedTower, inputs: TowerInputs) -> None:
    """Check that `stop_at_layer=L` returns the stream that enters block L, and that no later hook fires."""
    n, stack = tower.cfg.n_layers, tower.stack_name
    entry, leave = ("hook_resid_pre", "hook_resid_post") if stack == "blocks" else ("hook_out", "hook_out")
    with torch.no_grad():
        cache = everything(tower, inputs)[1]
        for stop in range(1 if stack == "stages" else 0, n + 1):
            out, got = tower.run_with_cache(inputs, stop_at_layer=stop)
            last = stop - 1 if (stop == n or stack == "stages") else stop
            want = cache[f"{stack}.{last}.{leave if last < stop else entry}"]
            near(out, want, f"stop_at_layer={stop}")
            late = [k for k in list(got) if k.startswith(tuple(f"{stack}.{i}." for i in range(stop, n)))]
            check(
                not late,
                expected=f"no activation after stop_at_layer={stop}",
                found=", ".join(late[:3]),
                fix="run only the blocks before stop_at_layer",
            )
        near(tower(inputs, stop_at_layer=-1), tower(inputs, stop_at_layer=n - 1), "stop_at_layer=-1")


def gradients_are_the_stock_models(tower: HookedTower, inputs: TowerInputs) -> None:
    """Check that hooks do not change the gradient of any parameter, in float64."""
    with _as(tower, torch.float64):
        wanted = _gradients(tower, inputs)
        with tower.hooks([(lambda name: True, lambda x, hook: None)]):
            found = _gradients(tower, inputs)
    check(
        wanted.keys() == found.keys(),
        expected="gradients of the same parameters with and without hooks",
        found=f"a difference in {', '.join(sorted(wanted.keys() ^ found.keys()))}",
        fix="use the parameters of the stock module, without detach or no_grad",
    )
    for name, gradient in wanted.items():
        near(found[name], gradient, f"gradient of {name}")


def _gradients(tower: HookedTower, inputs: TowerInputs) -> dict[str, Tensor]:
    named = {n: p for n, p in tower.named_parameters() if p.requires_grad}
    out = tower(inputs)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out)
    found = torch.autograd.grad((out * weights).sum(), list(named.values()), allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None}


def dtype_and_device_moves_work(tower: HookedTower, inputs: TowerInputs) -> None:
    """Check float64 (equal to stock within 1e-12), bfloat16 (finite) and, if there is one, an accelerator."""
    home = tower.device
    with torch.no_grad():
        with _as(tower, torch.float64):
            near(everything(tower, inputs)[0], tower.run_stock(tower.checked(inputs)), "hooked output in float64")
        with _as(tower, torch.bfloat16):
            check(
                bool(everything(tower, inputs)[0].isfinite().all()),
                expected="finite outputs in bfloat16",
                found="nan or inf",
                fix="compute sums and norms in the dtype that the stock module uses",
            )
        if torch.cuda.is_available():
            tower.to("cuda")
            check(
                everything(tower, inputs)[0].is_cuda and tower.cfg.device.type == "cuda",
                expected="outputs and tower.cfg.device on cuda",
                found="another device",
                fix="create tensors on the device of the stream",
            )
            tower.to(home)


def hooks_leave_no_trace(tower: HookedTower, inputs: TowerInputs) -> None:
    """Check that no hook is left after a run with hooks, even if it raised an error."""

    def fail(x: Tensor, hook: Any) -> None:
        raise KeyError("on purpose")

    with torch.no_grad(), raises(KeyError, "the error of the hook"):
        tower.run_with_hooks(inputs, fwd_hooks=[(next(iter(tower.hook_dict)), fail)])
    check(
        tower.is_unhooked(),
        expected="a tower without hooks after a run",
        found="hooks that were not removed",
        fix="add hooks with the methods of HookedTower, which remove them",
    )


def bad_use_is_refused(tower: HookedTower, inputs: TowerInputs) -> None:
    """Check that unknown hooks, wrong inputs, layers out of range and pickling raise errors of cliplens."""
    with raises(UnknownNameError, "an error for an unknown hook name"):
        tower.run_with_cache(inputs, names_filter="blocks.0.hook_resid_pots")
    other = inputs.long() if inputs.is_floating_point() else inputs.float()
    with raises(InputError, "an error for inputs of the other modality"):
        tower(other)
    with raises(InputError, "an error for a layer out of range"):
        tower(inputs, stop_at_layer=tower.cfg.n_layers + 1)
    with raises(InputError, "an error for pickling a tower"):
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


def everything(tower: HookedTower, inputs: TowerInputs) -> tuple[Tensor, Any]:
    """Return the output and a cache of every hook, `hook_result` included."""
    return tower.run_with_cache(inputs, names_filter=lambda name: True)


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
