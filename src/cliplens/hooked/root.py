"""The base class of a tower and of the joint model: a TransformerLens root that shares modules with a stock model.

It differs from `HookedRootModule` in three ways. `setup` names cliplens' modules only, so the stock modules stay
unaltered. The `hooks` context removes exactly the hooks it added, so contexts of a tower and of the joint model can be
nested in any order. Unknown names raise an error that lists the nearest names.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule

from cliplens.errors import InputError, unknown_attribute, unknown_name

Direction = Literal["fwd", "bwd"]
NameOrFilter = str | Callable[[str], bool]
HookFn = Callable[..., Any]


class HookedRoot(HookedRootModule, ABC):
    """A `HookedRootModule` that adds and removes its own hooks only."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise unknown_attribute(self, name, self.elsewhere(name)) from None

    def elsewhere(self, name: str) -> list[str]:
        """Return expressions that give what an unknown attribute of this model means; empty where there are none."""
        return []

    @abstractmethod
    def hook_for(self, name: str, hook: HookFn) -> HookFn:
        """Wrap a hook so that it is called with `name` as the name of its hook point."""

    @abstractmethod
    def cache_of(self, activations: dict[str, Tensor], has_batch_dim: bool) -> Any:
        """Return the cache that `run_with_cache` returns, from a dict of activations."""

    def check_names(self, names: Sequence[str]) -> None:
        """Check that hooks of these names exist.

        Raises:
            UnknownNameError: a name is unknown; the message lists the nearest names.
        """
        for name in names:
            if name not in self.hook_dict:
                raise unknown_name("hook", name, self.hook_dict)

    def add_hook(
        self,
        name: NameOrFilter,
        hook: HookFn,
        dir: Direction = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """Add a hook that stays until `reset_hooks`, as in TransformerLens."""
        for point_name, point in self._chosen(name):
            told = self.hook_for(point_name, hook)
            point.add_hook(told, dir=dir, is_permanent=is_permanent, level=level, prepend=prepend)

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[tuple[NameOrFilter, HookFn]] = (),
        bwd_hooks: Sequence[tuple[NameOrFilter, HookFn]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator["HookedRoot"]:
        """Add hooks for a `with` block. On leaving, exactly these hooks are removed."""
        added: list[tuple[HookPoint, Direction, Any]] = []
        self.context_level += 1
        try:
            for name, hook in fwd_hooks:
                self._enable(name, hook, "fwd", added)
            for name, hook in bwd_hooks:
                self._enable(name, hook, "bwd", added)
            yield self
        finally:
            if reset_hooks_end:
                _remove(added)
                self.is_caching = False
                if clear_contexts:
                    self.clear_contexts()
            self.context_level -= 1

    def run_with_cache(
        self,
        *inputs: Any,
        names_filter: NameOrFilter | Sequence[str] | None = None,
        remove_batch_dim: bool = False,
        return_cache_object: bool = True,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Run and cache activations, as in TransformerLens.

        Without a `names_filter`, all activations are cached except `hook_result`, which is d_model / d_head times as
        large as the others. Name it in `names_filter`, or call `set_use_attn_result(True)`.

        Raises:
            UnknownNameError: `names_filter` contains an unknown name.
        """
        chosen = self._filter(names_filter)
        out, activations = super().run_with_cache(
            *inputs, names_filter=chosen, remove_batch_dim=remove_batch_dim, **options
        )
        return out, self.cache_of(activations, not remove_batch_dim) if return_cache_object else activations

    def add_caching_hooks(
        self,
        names_filter: NameOrFilter | Sequence[str] | None = None,
        incl_bwd: bool = False,
        device: Any = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Add hooks that fill the returned dict at every run, until `reset_hooks`, as in TransformerLens."""
        kept, fwd, bwd = self.get_caching_hooks(
            self._filter(names_filter), incl_bwd, device, remove_batch_dim=remove_batch_dim, cache=cache
        )
        for name, hook in fwd:
            self.add_hook(name, hook, "fwd")
        for name, hook in bwd:
            self.add_hook(name, hook, "bwd")
        return kept

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Set whether `run_with_cache` without a filter caches `hook_result` (large)."""
        self._use_attn_result = use_attn_result

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise InputError(
            expected="weights saved as tensors",
            found=f"pickling of a {type(self).__name__}",
            fix="save the stock model's state_dict with safetensors and wrap it again after loading",
        )

    _use_attn_result = False

    def _filter(self, names: NameOrFilter | Sequence[str] | None) -> Callable[[str], bool]:
        if names is None:
            return lambda name: self._use_attn_result or not name.endswith("hook_result")
        if callable(names):
            return names
        listed = [names] if isinstance(names, str) else list(names)
        self.check_names(listed)
        return set(listed).__contains__

    def _chosen(self, name: NameOrFilter) -> list[tuple[str, HookPoint]]:
        points = self.hook_dict
        if callable(name):
            return [(n, p) for n, p in points.items() if name(n)]
        self.check_names([name])
        return [(name, points[name])]

    def _enable(self, name: NameOrFilter, hook: HookFn, dir: Direction, added: list[Any]) -> None:
        for point_name, point in self._chosen(name):
            point.add_hook(self.hook_for(point_name, hook), dir=dir, level=self.context_level)
            added.append((point, dir, (point.fwd_hooks if dir == "fwd" else point.bwd_hooks)[-1]))


def _remove(added: Sequence[tuple[HookPoint, Direction, Any]]) -> None:
    for point, dir, handle in added:
        handle.hook.remove()
        handles = point.fwd_hooks if dir == "fwd" else point.bwd_hooks
        handles[:] = [h for h in handles if h is not handle]


def named_points(root: nn.Module) -> dict[str, HookPoint]:
    """Return the hook points in the module tree under `root`, by name."""
    return {name: module for name, module in root.named_modules() if isinstance(module, HookPoint)}
