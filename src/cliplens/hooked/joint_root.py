"""Two towers under one root: joint names of hooks, dictionaries and modules, which start with `vision.` or `text.`."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import Any

from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from cliplens.errors import InputError, MismatchError
from cliplens.hooked.cache import JointCache
from cliplens.hooked.hook_view import HookView
from cliplens.hooked.part import hook_point
from cliplens.hooked.root import HookFn
from cliplens.hooked.splice import Splice
from cliplens.hooked.splicing import Splicing
from cliplens.hooked.text import HookedTextTower
from cliplens.hooked.tower import HookedTower
from cliplens.hooked.vision import HookedVisionTower
from cliplens.records import ModelIdentity
from cliplens.sites import SIDES, Side, Site


class JointRoot(Splicing):
    """The root of a model with one or two towers. It finds hooks, dictionaries and modules by their joint names."""

    vision: HookedVisionTower | None
    text: HookedTextTower | None

    def __init__(self) -> None:
        super().__init__()
        self.hook_logits = hook_point(None)
        self.hook_logits.name = "hook_logits"

    @property
    @abstractmethod
    def identity(self) -> ModelIdentity:
        """The name of the model and the hash of its weights."""

    @property
    def towers(self) -> dict[Side, HookedTower]:
        """The towers of the model, by side."""
        both: dict[Side, HookedTower | None] = {"vision": self.vision, "text": self.text}
        return {side: tower for side, tower in both.items() if tower is not None}

    @property
    def hook_dict(self) -> dict[str, HookPoint]:
        """All hook points by joint name, those of spliced dictionaries included."""
        return {**self._joined("hook_dict"), "hook_logits": self.hook_logits}

    @property
    def mod_dict(self) -> dict[str, nn.Module]:
        """All hooked modules by joint name."""
        return {**self._joined("mod_dict"), "hook_logits": self.hook_logits}

    def setup(self) -> None:
        """Set the names of the hook points of both towers again."""
        for tower in self.towers.values():
            tower.setup()

    def width(self, site: Site | str) -> int:
        """Return the width of one row of activations at the site.

        Raises:
            UnknownNameError: no hook has that name.
        """
        site = Site.parse(site) if isinstance(site, str) else site
        return self.tower(site.side).width(site.hook)

    def hook_for(self, name: str, hook: HookFn) -> HookFn:
        """Return the hook such that it is called with the joint name of its hook point."""

        def renamed(activation: Any, *, hook: HookPoint) -> Any:
            return original(activation, hook=HookView(name, hook))

        original = hook
        return renamed

    @property
    def splices(self) -> dict[str, Splice]:
        """The dictionaries spliced into the towers, by the joint name of the hook that each writes."""
        return self._joined("splices")

    def prefixes(self) -> tuple[str, ...]:
        """Return the prefixes of joint hook names: `vision.` and `text.`, or the one of the only tower."""
        return tuple(f"{side}." for side in self.towers)

    def check_compatible(self, dictionary: Any, hooks: Sequence[str]) -> None:
        """Check that a dictionary was trained on these weights and at these hooks, as far as its metadata say.

        Raises:
            MismatchError: it was trained on other weights or at other hooks.
        """
        if not isinstance(dictionary, nn.Module):
            dictionary.check(self, [Site.parse(name) for name in hooks])
            return
        made_on = getattr(getattr(dictionary.cfg, "metadata", None), "weights_sha256", None)
        if made_on is not None and made_on != self.identity.weights_sha256:
            raise MismatchError(
                expected=f"a dictionary trained on {self.identity.name} ({self.identity.weights_sha256[:12]})",
                found=f"one trained on weights {made_on[:12]}",
                fix="load the model that the dictionary was trained on",
            )

    def tower_of(self, hook: str, side: str | None) -> tuple[HookedTower, str]:
        """Return the tower of a hook, and the name of the hook in that tower.

        Args:
            hook: a joint name, or a name within a tower.
            side: the tower of a name without prefix.

        Raises:
            InputError: the name has no prefix and `side` is None, or the model has no such tower.
        """
        first = hook.partition(".")[0]
        named = first if first in SIDES else side
        if named not in SIDES:
            raise InputError(
                expected="a dictionary whose metadata name the tower, in clip_tower or as a prefix of hook_name",
                found=f"hook_name={hook!r}, clip_tower={side!r}",
                fix="pass add_sae(..., hook='vision." + hook + "'), or add the dictionary to clip.vision or clip.text",
            )
        return self.tower(named).tower_of(hook, side if first not in SIDES else None)

    def cache_of(self, activations: dict[str, Tensor], has_batch_dim: bool) -> JointCache:
        """Return a cache with joint names, and with the cache of each tower as `.vision` and `.text`."""
        return JointCache(activations, self.towers, has_batch_dim)

    def tower(self, side: Side) -> HookedTower:
        """Return the tower of a side.

        Raises:
            InputError: the model has no such tower.
        """
        tower = self.towers.get(side)
        if tower is None:
            raise InputError(
                expected=f"a model with a {side} tower",
                found=f"one with {', '.join(self.towers)} only",
                fix="use a tower that the model has",
            )
        return tower

    def _joined(self, which: str) -> dict[str, Any]:
        parts = ([(f"{side}.{n}", m) for n, m in getattr(t, which).items()] for side, t in self.towers.items())
        return dict(chain.from_iterable(parts))
