"""Check that a tower with all hooks active has the same output as its stock model.

An adapter recomputes the steps of a stock block. It cannot foresee a subclass, a replaced method or a LoRA. So a tower
over a model with classes other than the stock ones is run once on two random inputs, hooked and unhooked. If the
outputs differ, the tower raises an error.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from cliplens.errors import MismatchError
from cliplens.hooked.base import AbstractTower
from cliplens.hooked.sizes import check_sizes
from cliplens.hooked.structure import changes, has_hooks, in_eval_mode

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest |hooked - stock| / |stock| that counts as rounding, by dtype."""
PROBES = 2
LARGEST = 2**30
"""Weights a model may have to be copied for a proof."""


def prove(tower: AbstractTower, *, as_it_is: bool) -> None:
    """Compare the hooked and the unhooked output of the tower on random inputs.

    Random noise is added to the weights, because the weights as they are can hide a difference: a LoRA that is still
    zero, a change behind a tiny LayerScale, a small effect in half precision.

    Args:
        tower: the tower.
        as_it_is: compare with the unchanged weights too.

    Raises:
        MismatchError: they differ, or forward hooks on the stock model would not run. The message names the first
            block that differs and the reason.
    """
    with torch.no_grad(), in_eval_mode(tower.stock), _own_hooks_aside(tower):
        if as_it_is:
            _compare(tower)
        with_other_weights(tower.holder, lambda: _compare(tower))


def with_other_weights(holder: nn.Module, run: Callable[[], None]) -> None:
    """Call `run` while random noise is added to the weights, in float32 or wider; then restore the weights.

    A model that cannot run with such weights (it casts to a fixed dtype) is not compared. A very large one is compared
    with its own weights.
    """
    if sum(weight.numel() for weight in holder.parameters()) > LARGEST:
        run()
        return
    generators: dict[torch.device, torch.Generator] = {}
    other: dict[str, Tensor] = {}
    for name, weight in [*holder.named_parameters(), *holder.named_buffers()]:
        if not weight.is_floating_point() or weight.dtype.itemsize == 1:
            continue
        wide = weight.float() if weight.dtype.itemsize == 2 else weight
        other[f"holder.{name}"] = _moved(wide, generators) if isinstance(weight, nn.Parameter) else wide
    try:
        torch.func.functional_call(_Holding(holder, run), other, ())
    except (RuntimeError, TypeError, NotImplementedError):
        return


class _Holding(nn.Module):
    """A module for `functional_call` that holds another one and calls a function."""

    run: Callable[[], None]

    def __init__(self, holder: nn.Module, run: Callable[[], None]) -> None:
        super().__init__()
        self.holder = holder
        self.__dict__["run"] = run

    def forward(self) -> None:
        self.run()


def _moved(weight: Tensor, generators: dict[torch.device, torch.Generator]) -> Tensor:
    device = weight.device
    generator = generators.setdefault(device, torch.Generator(device).manual_seed(len(generators)))
    noise = torch.randn(weight.shape, generator=generator, device=device, dtype=weight.dtype)
    return weight + noise * (0.3 if weight.ndim < 2 else 0.5 * max(weight[0].numel(), 1) ** -0.5)


def _compare(tower: AbstractTower) -> None:
    inputs = probe_inputs(tower)
    try:
        with _counted(tower.stock) as wanted_calls:
            wanted = tower.run_stock(inputs)
    except (RuntimeError, NotImplementedError):
        return  # The stock model does not run either: nothing to compare with.
    try:
        with _everything_read(tower), _counted(tower.stock) as calls:
            got = tower.run_hooked(inputs)
    except Exception as error:
        check_sizes(tower)
        raise _refusal(tower, f"{type(error).__name__} in the hooked forward pass: {error}") from error
    lost = [name for name, count in wanted_calls.items() if count and calls[name] != count]
    if lost:
        where = f"stock module {lost[0]!r}" if lost[0] else "the encoder itself"
        raise _refusal(tower, f"forward hooks on {where}, which the hooked pass would skip")
    gap = gap_between(got, wanted)
    if not gap <= TOLERANCE.get(wanted.dtype, 1e-2):
        raise _refusal(tower, _where(tower, inputs, gap))


def probe_inputs(tower: AbstractTower) -> Tensor:
    """Return two random images or captions for the tower, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    cfg = tower.cfg
    if cfg.side == "vision":
        size = cfg.image_size or (224, 224)
        return tower.checked(torch.randn(PROBES, 3, *size, generator=generator))
    tokens = torch.randint(1, max(cfg.d_vocab, 3), (PROBES, cfg.n_ctx), generator=generator)
    tokens[0, 1 + cfg.n_ctx // 2 :] = 0
    return tower.checked(tokens)


def _refusal(tower: AbstractTower, found: str) -> MismatchError:
    return MismatchError(
        expected=f"a {tower.cfg.side} tower with the same output with and without hooks",
        found=found,
        fix="wrap the stock model without that change (merge a LoRA, remove the hooks, call prune.remove), write a"
        " Tower adapter for it (CONTRIBUTING.md, 'Adding a tower'), or pass check=False to read it anyway",
    )


def _where(tower: AbstractTower, inputs: Tensor, gap: float) -> str:
    changed = changes(tower.stock)
    stream, context = tower.embed(inputs)
    layers: Any = tower.get_submodule(tower.stack_name)
    for number, layer in enumerate(layers):
        after = layer(stream, context)
        with _everything_read(layer):
            hooked = layer(stream, context)
        if not gap_between(hooked, after) <= TOLERANCE.get(after.dtype, 1e-2):
            return f"block {number} that differs by {gap_between(hooked, after):.1e}: {_why(tower, layer, changed)}"
        stream = after
    return f"an output that differs by {gap:.1e}, before or behind the blocks: {_listed(changed)}"


def _why(tower: AbstractTower, layer: nn.Module, changed: dict[str, str]) -> str:
    stock = layer.__dict__.get("stock")
    inside = {id(module) for module in stock.modules()} if isinstance(stock, nn.Module) else set()
    own = {
        name: changed[name] for name, module in tower.stock.named_modules() if id(module) in inside and name in changed
    }
    return _listed(own or changed)


def _listed(changed: dict[str, str]) -> str:
    named = [f"{name or 'the encoder'} is {why}" for name, why in changed.items()]
    return "; ".join(named[:3]) or "its classes give no reason"


def gap_between(got: Shaped[Tensor, "..."], wanted: Shaped[Tensor, "..."]) -> float:
    """Return |got - wanted| / |wanted| over the finite numbers; inf where shapes or the places of nan differ."""
    if got.shape != wanted.shape:
        return float("inf")
    same = got.isfinite() == wanted.isfinite()
    if not bool(same.all()):
        return float("inf")
    finite = wanted.isfinite()
    wanted, got = wanted[finite].double(), got[finite].double()
    return float((got - wanted).norm() / wanted.norm().clamp_min(1e-12))


class _Count:
    """A forward pre-hook that counts the calls of a module."""

    def __init__(self, into: dict[str, int], name: str) -> None:
        self.into, self.name = into, name

    def __call__(self, module: nn.Module, given: Any) -> None:
        self.into[self.name] += 1


@contextmanager
def _counted(stock: nn.Module) -> Iterator[dict[str, int]]:
    """Count the calls of the stock modules that have forward hooks."""
    calls: dict[str, int] = {}
    with ExitStack() as handles:
        for name, module in stock.named_modules():
            if has_hooks(module):
                calls[name] = 0
                handles.callback(module.register_forward_pre_hook(_Count(calls, name)).remove)
        yield calls


@contextmanager
def _everything_read(part: nn.Module) -> Iterator[None]:
    """Activate every hook point inside a module."""
    with ExitStack() as handles:
        for module in part.modules():
            if isinstance(module, HookPoint):
                handles.callback(module.register_forward_hook(_look).remove)
        yield


def _look(module: nn.Module, given: Any, output: Tensor) -> None:
    return


@contextmanager
def _own_hooks_aside(tower: AbstractTower) -> Iterator[None]:
    """Remove the hooks and dictionaries at the tower's hook points for the `with` block."""
    kept = [(point, point._forward_hooks, point._backward_hooks) for point in tower.hook_dict.values()]
    pre = [(point, point._forward_pre_hooks) for point in tower.hook_dict.values()]
    try:
        for point, forward, backward in kept:
            point._forward_hooks, point._backward_hooks = type(forward)(), type(backward)()
        for point, given in pre:
            point._forward_pre_hooks = type(given)()
        yield
    finally:
        for point, forward, backward in kept:
            point._forward_hooks, point._backward_hooks = forward, backward
        for point, given in pre:
            point._forward_pre_hooks = given
