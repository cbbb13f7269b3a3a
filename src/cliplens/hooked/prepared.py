"""Find the tower and the hook of a dictionary, from its metadata, and check that it fits there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from cliplens.errors import InputError, MismatchError
from cliplens.hooked.base import AbstractTower
from cliplens.hooked.splice import Splice

TowerOf = Callable[[str, str | None], tuple[AbstractTower, str]]
_ONE_POSITION = ("auto", "cls", "eot")
_WITH_POSITIONS = ("blocks.", "ln_pre.", "ln_final.", "hook_pos_embed")


@dataclass(frozen=True)
class Prepared:
    """A dictionary with its tower and hook."""

    sae: nn.Module
    tower: AbstractTower
    reads: str
    writes: str
    head: int | None
    token: str | None

    def splice(self, use_error_term: bool | None, exclude: bool | list[int]) -> Splice:
        """Return the splice, not yet attached."""
        with_error = bool(getattr(self.sae, "use_error_term", False)) if use_error_term is None else use_error_term
        positions = self.writes.startswith(_WITH_POSITIONS) or self.writes == "hook_embed"
        return Splice(
            self.sae,
            self.tower.hook_dict[self.writes],
            None if self.reads == self.writes else self.tower.hook_dict[self.reads],
            use_error_term=with_error,
            exclude=(exclude or self.token == "patches") if positions else False,
            one_position=positions and self.token in _ONE_POSITION,
            head=self.head,
        )


def prepared(tower_of: TowerOf, sae: nn.Module, hook: str | None, token: str | None) -> Prepared:
    """Return a dictionary with its tower and hook, checked.

    Args:
        tower_of: function from a hook name and a side to the tower and the name of the hook in it.
        sae: the dictionary.
        hook: name of the hook, in place of the one in its metadata.
        token: position of the samples that it was trained on; None means all.

    Raises:
        InputError: the metadata name no hook, or a transcoder reads and writes different towers.
        MismatchError: the hook has another width than the dictionary.
    """
    metadata = _metadata(sae, hook)
    tower, reads = tower_of(hook or metadata("hook_name"), None if hook else metadata("clip_tower"))
    told_out = metadata("hook_name_out")
    into, writes = tower_of(told_out, tower.cfg.side) if told_out and hook is None else (tower, reads)
    head = metadata("hook_head_index")
    _check_same_tower(tower, reads, into, writes)
    _check_width(sae, "d_in", tower, reads, head)
    _check_width(sae, "d_out" if hasattr(sae.cfg, "d_out") else "d_in", tower, writes, head)
    return Prepared(sae, tower, reads, writes, head, token)


def _metadata(sae: nn.Module, hook: str | None) -> Callable[[str], Any]:
    found = getattr(getattr(sae, "cfg", None), "metadata", None)
    if hook is None and not getattr(found, "hook_name", None):
        raise InputError(
            expected="a dictionary with the name of its hook in cfg.metadata.hook_name",
            found=f"{type(sae).__name__} without",
            fix="set it, for example 'vision.blocks.9.hook_resid_post', or pass add_sae(..., hook=...)",
        )
    return lambda name: getattr(found, name, None)


def _check_same_tower(tower: Any, reads: str, into: Any, writes: str) -> None:
    if tower is not into:
        raise InputError(
            expected="a transcoder that reads and writes one tower",
            found=f"{tower.cfg.side}.{reads} and {into.cfg.side}.{writes}",
            fix="use a transcoder within one tower, or call this one on cached activations",
        )


def _check_width(sae: Any, which: str, tower: AbstractTower, hook: str, head: int | None) -> None:
    width = tower.width(hook)
    if head is not None:
        width //= tower.cfg.n_heads
    wanted = getattr(sae.cfg, which, width)
    if wanted != width:
        raise MismatchError(
            expected=f"a hook of width {which}={wanted}, as in the dictionary",
            found=f"{tower.cfg.side}.{hook} of width {width}",
            fix="splice it in at the hook it was trained on, or train one on this hook",
        )
