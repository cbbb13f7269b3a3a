"""A dictionary attached to a hook point of a tower.

The hook point stays the same object. The dictionary is a forward hook that runs before all others, so other hooks read
the replaced activation. The hook points of the dictionary are neither renamed nor shared: the tower's hook
`blocks.1.hook_resid_post.hook_sae_acts_post` is a hook point of the splice, which the dictionary's hook point of that
name forwards to while the tower runs. So one dictionary can be attached to both towers, and a run does not alter it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from cliplens.errors import InputError
from cliplens.hooked.part import active, hook_point

INPUT, CODES, REBUILT, ERROR, OUTPUT = (
    "hook_sae_input",
    "hook_sae_acts_post",
    "hook_sae_recons",
    "hook_sae_error",
    "hook_sae_output",
)


class Splice:
    """A dictionary (or a transcoder with two hooks) that replaces an activation by its reconstruction.

    `sae` is any module with `encode`, `decode` and `forward`. Activations of heads, [batch, pos, head, d], are
    concatenated for it, or reduced to the head `head`. Where `passes` [batch, pos] is True the activation is kept.
    """

    def __init__(
        self,
        sae: nn.Module,
        into: HookPoint,
        source: HookPoint | None = None,
        *,
        use_error_term: bool = False,
        exclude: bool | list[int] = False,
        one_position: bool = False,
        head: int | None = None,
    ) -> None:
        self.sae, self.into, self.source = sae, into, source
        self.use_error_term, self.exclude, self.one_position = use_error_term, exclude, one_position
        self.head = head
        self.passes: Bool[Tensor, "batch pos"] | None = None
        self.inner = {n: m for n, m in sae.named_children() if isinstance(m, HookPoint) and n not in (ERROR, OUTPUT)}
        self.points = {
            name: hook_point(self._width(name)) for name in [*(self.inner or (INPUT, CODES, REBUILT)), ERROR, OUTPUT]
        }
        self._handles: list[Any] = []
        self._captured: Tensor | None = None

    def attach(self) -> None:
        """Attach to the hook point."""
        for name, own in self.points.items():
            self.into.add_module(name, own)
        self._handles.append(self.into.register_forward_hook(self._replace, prepend=True))
        if self.source is not None:
            capture = self.source.register_forward_hook(self._capture)
            self._handles += [capture, self.source.register_forward_pre_hook(_Last(capture.id))]

    def detach(self) -> None:
        """Detach from the hook point. Other hooks on it stay."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for name in self.points:
            delattr(self.into, name)
        self._captured, self.passes = None, None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the activation that replaces `x`, of the same shape and dtype."""
        given = x if self.source is None else self._taken()
        if self.head is None:
            return self._through(given, x)
        out = x.clone()
        out[:, :, self.head] = self._through(given[:, :, self.head], x[:, :, self.head])
        return out

    def _through(self, given: Tensor, x: Tensor) -> Tensor:
        rows = self._rows(given)
        passes = self._passes(x)
        rebuilt = self._rebuilt(rows)
        out = rebuilt.reshape(x.shape)
        if self.use_error_term:
            out = self._with_error(x, out, rows, passes)
        out = out.to(x.dtype)
        if passes is not None:
            out = torch.where(passes, x, out)
        return self.points[OUTPUT](out)

    def _rebuilt(self, rows: Tensor) -> Tensor:
        if not self.inner:
            codes = self.points[CODES](self.sae.encode(self.points[INPUT](rows)))  # type: ignore[operator]
            return self.points[REBUILT](self.sae.decode(codes))  # type: ignore[operator]
        with ExitStack() as relays:
            for name, theirs in self.inner.items():
                if active(self.points[name]):
                    relays.callback(theirs.register_forward_hook(_Relay(self.points[name])).remove)
            return self._run(rows)

    def _run(self, rows: Tensor) -> Tensor:
        # SAELens' own flag adds the error inside the SAE, where it would also undo edits of the codes.
        if getattr(self.sae, "use_error_term", False) and not hasattr(getattr(self.sae, "cfg", None), "d_out"):
            return self.sae.decode(self.sae.encode(rows))  # type: ignore[operator]
        return self.sae(rows)

    def _with_error(self, x: Tensor, out: Tensor, rows: Tensor, passes: Tensor | None) -> Tensor:
        """Add the reconstruction error of the dictionary, run without hooks, to `out`.

        Computed as x + (out - clean). Without edits this is `x`, bit for bit.
        """
        with torch.no_grad():
            clean = self._clean(out, rows, x)
            error = x - clean
            if passes is not None:
                error = torch.where(passes, torch.zeros_like(error), error)
        if active(self.points[ERROR]):
            told = self.points[ERROR](error.clone())
            if not torch.equal(told, error):
                return out + told
        return x.detach() + (out - clean)

    def _clean(self, out: Tensor, rows: Tensor, x: Tensor) -> Tensor:
        if not active(*self.inner.values(), *(p for n, p in self.points.items() if n not in (ERROR, OUTPUT))):
            return out
        with _silenced(self.sae, self.inner):
            return self._run(rows).reshape(x.shape) if self.inner else self._plain(rows).reshape(x.shape)

    def _plain(self, rows: Tensor) -> Tensor:
        return self.sae.decode(self.sae.encode(rows))  # type: ignore[operator]

    def _rows(self, given: Tensor) -> Tensor:
        own_reshaping = getattr(self.sae, "hook_z_reshaping_mode", False) and self.head is None
        return given if given.ndim < 4 or own_reshaping else given.flatten(2)

    def _passes(self, x: Tensor) -> Tensor | None:
        if self.passes is None or x.shape[1] != self.passes.shape[1]:
            return None
        return self.passes.to(x.device).view(*self.passes.shape, *(1,) * (x.ndim - 2))

    def _taken(self) -> Tensor:
        given, self._captured = self._captured, None
        if given is None:
            raise InputError(
                expected="a transcoder's input hook that fires before its output hook",
                found=f"{self.into.name} reached first",
                fix="set hook_name to the hook that the transcoder reads and hook_name_out to the one it writes",
            )
        return given

    def _replace(self, module: HookPoint, inputs: Any, output: Tensor) -> Tensor:
        conversion = module.hook_conversion
        return self(output) if conversion is None else conversion.revert(self(conversion.convert(output)))

    def _capture(self, module: HookPoint, inputs: Any, output: Tensor) -> None:
        conversion = module.hook_conversion
        self._captured = output if conversion is None else conversion.convert(output)

    def _width(self, name: str) -> int | None:
        cfg = getattr(self.sae, "cfg", None)
        d_in, d_sae = getattr(cfg, "d_in", None), getattr(cfg, "d_sae", None)
        if name == INPUT:
            return d_in
        return getattr(cfg, "d_out", d_in) if name in (REBUILT, ERROR, OUTPUT) else d_sae


class _Relay:
    """A forward hook that passes an activation through another hook point."""

    def __init__(self, to: HookPoint) -> None:
        self.to = to

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return self.to(output)


class _Last:
    """A forward pre-hook that moves one forward hook to the end, so that it sees the result of all others."""

    def __init__(self, id: int) -> None:
        self.id = id

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        module._forward_hooks.move_to_end(self.id)  # type: ignore[attr-defined]


@contextmanager
def _silenced(sae: nn.Module, points: dict[str, HookPoint]) -> Iterator[None]:
    """Switch the hook points of the dictionary off for the `with` block."""
    try:
        for name in points:
            setattr(sae, name, nn.Identity())
        yield
    finally:
        for name, own in points.items():
            setattr(sae, name, own)
