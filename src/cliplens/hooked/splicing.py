"""Splice dictionaries into the forward pass of a tower or of the joint model, with SAELens' method names."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from cliplens.errors import InputError, MismatchError
from cliplens.hooked.base import AbstractTower
from cliplens.hooked.prepared import Prepared, prepared
from cliplens.hooked.root import HookedRoot, HookFn, NameOrFilter
from cliplens.hooked.special import all_but_one, special_mask
from cliplens.hooked.splice import Splice
from cliplens.shapes import TowerInputs
from cliplens.sites import MODALITY_OF, SIDES


class Splicing(HookedRoot):
    """A root that takes dictionaries: stock SAELens SAEs and transcoders, or modules with the same methods.

    The hook is read from the dictionary: `cfg.metadata.hook_name` (and `hook_name_out` of a transcoder), either a joint
    name (`vision.blocks.1.hook_resid_post`) or a name within the tower in `clip_tower`. A tower needs no `clip_tower`.

    A cliplens `Dictionary` can be passed directly: each tower gets the copy for its raw activations, at the site it was
    trained on. If it was trained on one token per sample (its `token` is auto, cls or eot), it is applied at that
    position only; if on patches, at patches only. SAELens' dictionaries are applied at every position.
    """

    @abstractmethod
    def tower_of(self, hook: str, side: str | None) -> tuple[AbstractTower, str]:
        """Return the tower of a hook and the name of the hook in it. `side` is the dictionary's `clip_tower`, or None.

        Raises:
            InputError: neither the name nor `side` names a tower.
            MismatchError: the name or `side` names another tower than this one.
            UnknownNameError: no hook has that name.
        """

    @property
    @abstractmethod
    def splices(self) -> dict[str, Splice]:
        """The spliced dictionaries, by the name of the hook that each writes."""

    def check_compatible(self, dictionary: Any, hooks: Sequence[str]) -> None:
        """Check that a dictionary was trained on this model, as far as its metadata say."""

    @property
    def acts_to_saes(self) -> dict[str, nn.Module]:
        """The spliced dictionaries, by the name of the hook that each reads."""
        return {self._read_by(name, splice): splice.sae for name, splice in self.splices.items()}

    def add_sae(
        self,
        sae: Any,
        use_error_term: bool | None = None,
        exclude_special_tokens: bool | list[int] = False,
        *,
        hook: str | None = None,
    ) -> None:
        """Splice a dictionary in until `reset_saes`. It replaces one that writes to the same hook.

        Args:
            sae: a SAELens SAE or transcoder, a cliplens `Dictionary`, or any module with `encode`, `decode`, `forward`,
                `cfg.d_in` and `cfg.metadata.hook_name`.
            use_error_term: add the reconstruction error, so that the output changes only if codes are edited. None
                reads the setting of the dictionary.
            exclude_special_tokens: True keeps the activations at the class token, start, end and padding; or the token
                ids to keep. It has no effect at hooks with one position per sample (pooled, projected, embedding).
            hook: name of the hook, in place of the one in the metadata.

        Raises:
            UnknownNameError: there is no such hook.
            MismatchError: the hook has another width than the dictionary or lies in another tower, or the dictionary
                was trained on another model.
        """
        for one in self._prepared(sae, hook):
            one.tower.put_splice(one.writes, one.splice(use_error_term, exclude_special_tokens))

    def reset_saes(self, act_names: str | Sequence[str] | None = None) -> None:
        """Remove the dictionaries that read or write the named hooks; None removes all.

        Raises:
            InputError: no dictionary is at one of these hooks.
        """
        named = [act_names] if isinstance(act_names, str) else act_names
        present = {name: {name, self._read_by(name, splice)} for name, splice in self.splices.items()}
        for wanted in named or ():
            if not any(wanted in names for names in present.values()):
                raise InputError(
                    expected=f"a hook with a dictionary, one of {sorted(self.acts_to_saes)}",
                    found=repr(wanted),
                    fix="pass a key of acts_to_saes",
                )
        for name, names in present.items():
            if named is None or names & set(named):
                tower, local = self.tower_of(name, None)
                tower.put_splice(local, None)

    @contextmanager
    def saes(
        self,
        saes: Any = (),
        reset_saes_end: bool = True,
        use_error_term: bool | None = None,
        exclude_special_tokens: bool | list[int] = False,
    ) -> Iterator["Splicing"]:
        """Splice dictionaries in for a `with` block. On leaving, the previous dictionaries are restored."""
        before: list[tuple[AbstractTower, str, Splice | None]] = []
        try:
            for sae in saes if isinstance(saes, Sequence) else [saes]:
                for one in self._prepared(sae, None):
                    tower, name = one.tower, one.writes
                    before.append((tower, name, tower.splices.get(name)))
                    tower.put_splice(name, one.splice(use_error_term, exclude_special_tokens))
            yield self
        finally:
            for tower, name, previous in reversed(before) if reset_saes_end else ():
                tower.put_splice(name, previous)

    def run_with_saes(
        self,
        *inputs: Any,
        saes: Any = (),
        reset_saes_end: bool = True,
        use_error_term: bool | None = None,
        exclude_special_tokens: bool | list[int] = False,
        **options: Any,
    ) -> Any:
        """Run a forward pass with dictionaries spliced in."""
        with self.saes(saes, reset_saes_end, use_error_term, exclude_special_tokens):
            return self(*inputs, **options)

    def run_with_cache_with_saes(
        self,
        *inputs: Any,
        saes: Any = (),
        reset_saes_end: bool = True,
        use_error_term: bool | None = None,
        exclude_special_tokens: bool | list[int] = False,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Run with dictionaries spliced in and cache activations, those of their hook points included."""
        with self.saes(saes, reset_saes_end, use_error_term, exclude_special_tokens):
            return self.run_with_cache(*inputs, **options)

    def run_with_hooks_with_saes(
        self,
        *inputs: Any,
        saes: Any = (),
        reset_saes_end: bool = True,
        use_error_term: bool | None = None,
        exclude_special_tokens: bool | list[int] = False,
        fwd_hooks: Sequence[tuple[NameOrFilter, HookFn]] = (),
        bwd_hooks: Sequence[tuple[NameOrFilter, HookFn]] = (),
        **options: Any,
    ) -> Any:
        """Run with dictionaries spliced in and with hooks, which may name hook points of the dictionaries."""
        with self.saes(saes, reset_saes_end, use_error_term, exclude_special_tokens):
            return self.run_with_hooks(*inputs, fwd_hooks=list(fwd_hooks), bwd_hooks=list(bwd_hooks), **options)

    def _read_by(self, name: str, splice: Splice) -> str:
        if splice.source is None:
            return name
        _, local = self.tower_of(name, None)
        return name.removesuffix(local) + str(splice.source.name)

    def _prepared(self, sae: Any, hook: str | None) -> list[Prepared]:
        """Return checked dictionaries with their hooks; a `Dictionary` of both modalities gives one per tower."""
        if isinstance(sae, nn.Module):
            self.check_compatible(sae, [hook] if hook else [])
            return [prepared(self.tower_of, sae, hook, getattr(getattr(sae.cfg, "metadata", None), "token", None))]
        if getattr(sae, "folded", None) is None:
            raise InputError(
                expected="a SAELens SAE, a cliplens Dictionary or a module with encode, decode and forward",
                found=repr(sae),
                fix="pass a dictionary of one of these kinds",
            )
        made_on = sae.provenance
        names = [hook] if hook else self.own_sites(made_on.sites if made_on else ())
        self.check_compatible(sae, names)
        token = made_on.token if made_on else None
        return [
            prepared(self.tower_of, sae.folded(MODALITY_OF[self.tower_of(n, None)[0].cfg.side]), n, token)
            for n in names
        ]

    def own_sites(self, sites: Sequence[str]) -> list[str]:
        """Return the sites of a dictionary that lie in this root.

        Raises:
            MismatchError: none of them does.
        """
        own = [name for name in sites if f"{name.partition('.')[0]}." in self.prefixes()]
        if not own:
            raise MismatchError(
                expected="a dictionary that was trained on a site of this model",
                found=f"a dictionary of {', '.join(sites) or 'unknown sites'}",
                fix="pass add_sae(..., hook=...)",
            )
        return own

    @abstractmethod
    def prefixes(self) -> tuple[str, ...]:
        """Return the prefixes of joint hook names in this root."""


class SplicedTower(Splicing, AbstractTower):
    """A tower with splices. It tells them which positions are special."""

    def __init__(self) -> None:
        super().__init__()
        self._splices: dict[str, Splice] = {}

    @property
    def splices(self) -> dict[str, Splice]:
        """The spliced dictionaries, by the name of the hook that each writes."""
        return self._splices

    def put_splice(self, hook: str, splice: Splice | None) -> None:
        """Attach a splice at a hook, in place of the one there; None only detaches."""
        present = self._splices.pop(hook, None)
        if present is not None:
            present.detach()
        if splice is not None:
            splice.attach()
            self._splices[hook] = splice
        self.setup()

    def prefixes(self) -> tuple[str, ...]:
        """Return `vision.` or `text.`."""
        return (f"{self.cfg.side}.",)

    def tower_of(self, hook: str, side: str | None) -> tuple[Any, str]:
        """Return this tower and the name of the hook without prefix."""
        own: str = self.cfg.side
        first, _, rest = hook.partition(".")
        name = rest if first in SIDES else hook
        meant = first if first in SIDES else side
        if meant in SIDES and meant != own:
            raise MismatchError(
                expected=f"a dictionary of the {own} tower",
                found=f"one for {meant}.{name}",
                fix=f"add it to the {meant} tower or to the joint model",
            )
        self.check_names([name])
        return self, name

    def mark_special(self, inputs: TowerInputs) -> None:
        """Tell the splices at which positions of these inputs to keep the activations."""
        for splice in self._splices.values():
            masks = []
            if splice.exclude is not False:
                masks.append(special_mask(self, inputs, splice.exclude))
            if splice.one_position:
                masks.append(all_but_one(self, inputs))
            splice.passes = torch.stack(masks).any(0) if masks else None
