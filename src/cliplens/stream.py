"""Towers x pairs -> activations of both modalities, row by row in step.

A pair is read whole or not at all: when its image or its caption is bad, both are dropped. What one batch gives is a
function of the model and of the pairs in it, so the same batches give the same rows whoever reads them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from cliplens.errors import InputError, MismatchError, NonFiniteError, unknown_name
from cliplens.hooked import CompiledReading, HookedCLIP, HookedTower
from cliplens.pairs import Decoded, Decoder, Pairs, Quarantine, tokenised
from cliplens.records import PairedActs
from cliplens.sites import SIDES, Side, Site

Token = Literal["auto", "cls", "eot", "mean", "patches", "all"]
TOKENS: tuple[str, ...] = get_args(Token)
AUTOCASTS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_ONE_SIDE: dict[str, Side] = {"cls": "vision", "patches": "vision", "eot": "text"}
Places = Int64[np.ndarray, " _"]
"""Places of pairs; batches differ in length, so the axis has no name."""


@dataclass(frozen=True)
class SiteActs:
    """Activations of a batch at one site after the token choice; padding lies beyond `lengths`."""

    acts: Float[Tensor, "pair pos d_in"]
    lengths: Int64[Tensor, " pair"]
    token: str
    """What was chosen: cls, eot, single (the hook has one position), mean, patches or all."""
    special: Int64[Tensor, " pair"] | None = None
    """With "all": where CLS or EOT stands."""

    @property
    def one_each(self) -> bool:
        """Whether every pair has exactly one row."""
        return self.acts.shape[1] == 1

    def rows(self) -> Float[Tensor, "row d_in"]:
        """The real rows, padding left out, pair after pair."""
        return self.acts[:, 0] if self.one_each else self.acts[self.real]

    @property
    def real(self) -> Bool[Tensor, "pair pos"]:
        """Which positions are no padding."""
        return torch.arange(self.acts.shape[1], device=self.acts.device) < self.lengths[:, None]


@dataclass(frozen=True)
class ReadBatch:
    """The good pairs of one batch with their activations at every site, and what was wrong with the others."""

    decoded: Decoded
    sites: Mapping[Site, SiteActs]
    tokens: Int64[Tensor, "pair context"] | None
    truncated: int


class Reader:
    """Reads sites of both towers, all in one pass that stops at the deepest.

    Args:
        clip: the model.
        sites: where to read; several per tower are fine.
        token: which position stands for a sample, wherever a hook has more than one: "auto" is CLS for images (the mean
            in towers without it) and EOT for captions; "mean" averages what is no padding, "all" keeps every position
            that is no padding, "patches" all of an image but CLS.
        autocast: "bfloat16" or "float16" runs matrix products in it (`torch.autocast`); rows are float32 all the same.
        compiled: a number of pairs: batches of up to so many are read through `torch.compile`
            (`cliplens.hooked.CompiledReading`), the same to rounding; None reads as the model stands.

    Raises:
        UnknownNameError: no such hook, or no such token choice.
        InputError: a token choice that only one tower has, asked of both.
    """

    def __init__(
        self,
        clip: HookedCLIP,
        sites: Sequence[Site],
        token: str = "auto",
        autocast: str | None = None,
        compiled: int | None = None,
    ) -> None:
        if token not in TOKENS:
            raise unknown_name("token choice", token, TOKENS)
        if autocast is not None and autocast not in AUTOCASTS:
            raise unknown_name("autocast dtype", autocast, AUTOCASTS)
        self.autocast, self.compiled = autocast, compiled
        self.clip = clip
        self._compiled: dict[Side, CompiledReading] = {}
        self.sites = tuple(dict.fromkeys(sites))
        self.token = token
        self.widths = {site: clip.width(site) for site in self.sites}
        if not self.sites:
            raise InputError(
                expected="at least one site to read", found="none", fix="give a hook, such as hook_embedding"
            )
        wrong = [str(s) for s in self.sites if _ONE_SIDE.get(token, s.side) != s.side]
        if wrong:
            raise InputError(
                expected=f"sites of the {_ONE_SIDE[token]} tower for token={token!r}",
                found=", ".join(wrong),
                fix="use token='auto', or read the towers one at a time",
            )
        if self.reads("text") and clip.text is None:
            raise InputError(
                expected="a model with a text tower",
                found=clip.identity.name,
                fix="read sites of its vision tower only",
            )

    def reads(self, side: Side) -> bool:
        """Whether a site of that tower is read."""
        return any(s.side == side for s in self.sites)

    def decoder(self, pairs: Pairs) -> Decoder:
        """What decodes these pairs for the towers that are read.

        Raises:
            InputError: the pairs have no such column, or the model came without what prepares its input.
        """
        for side, has, what in (("vision", pairs.has_images, "images"), ("text", pairs.has_captions, "captions")):
            if self.reads(side) and not has:  # type: ignore[arg-type]
                raise InputError(
                    expected=f"pairs with {what}, which {side} sites need",
                    found=f"{pairs.name!r} without",
                    fix=f"name the column of {what}, or read the other tower only",
                )
        for side, tool, what in (
            ("vision", self.clip.preprocess, "preprocess"),
            ("text", self.clip.tokenizer, "tokenizer"),
        ):
            if self.reads(side) and tool is None:  # type: ignore[arg-type]
                raise InputError(
                    expected=f"a model with its {what}", found="none", fix=f"give it: cliplens.wrap(model, {what}=...)"
                )
        return Decoder(pairs, self.clip.preprocess if self.reads("vision") else None, self.reads("text"))

    @torch.no_grad()
    def read(self, decoded: Decoded) -> ReadBatch:
        """The activations of one decoded batch, float32, on the model's device."""
        out: dict[Site, SiteActs] = {}
        tokens, truncated = None, 0
        if decoded.images is not None:
            images = decoded.images.to(self.clip.device, self.clip.dtype, non_blocking=True)
            out.update(self._side(self.clip.vision, "vision", images))
        if decoded.captions is not None and self.clip.text is not None and self.clip.tokenizer is not None:
            said = tokenised(decoded.captions, self.clip.tokenizer)
            tokens, truncated = said.tokens, said.truncated
            out.update(self._side(self.clip.text, "text", tokens.to(self.clip.device)))
        return ReadBatch(decoded, {s: out[s] for s in self.sites}, tokens, truncated)

    def _side(self, tower: HookedTower, side: Side, inputs: Tensor) -> Iterator[tuple[Site, SiteActs]]:
        sites = [s for s in self.sites if s.side == side]
        if not sites:
            return
        with torch.autocast(inputs.device.type, AUTOCASTS.get(self.autocast or ""), enabled=bool(self.autocast)):
            read = self._read_hooks(tower, side, inputs, [s.hook for s in sites])
        if self.token == "patches" and all(found.shape[1] == 1 for found in read.values()):
            raise MismatchError(
                expected="a hook with patch positions for token='patches'",
                found=f"hooks with one position ({', '.join(read)})",
                fix="use token='auto'",
            )
        for hook, found in read.items():
            acts = found.flatten(2).float()
            one = acts.shape[1] == 1
            yield Site(side, hook), SiteActs(acts, _full(acts), "single") if one else self._chosen(tower, acts, inputs)

    def _read_hooks(self, tower: HookedTower, side: Side, inputs: Tensor, hooks: list[str]) -> dict[str, Tensor]:
        if self.compiled is None:
            return tower.read(inputs, hooks)
        if side not in self._compiled:
            self._compiled[side] = CompiledReading(self.clip.model, tower, side, hooks, self.compiled)
        return self._compiled[side](inputs)

    def _chosen(self, tower: HookedTower, acts: Float[Tensor, "pair pos d_in"], inputs: Tensor) -> SiteActs:
        images = inputs.is_floating_point()
        # Patch embeddings come before the class token joins them.
        leading = self.clip.vision.n_special if images and acts.shape[1] == tower.cfg.n_ctx else 0
        if self.token == "patches":
            return SiteActs(acts[:, leading:], _full(acts[:, leading:]), "patches")
        classless = images and not leading
        special = None if classless and self.token != "cls" else tower.special_position(inputs).to(acts.device).long()
        lengths = _full(acts) if images or special is None else _lengths(inputs.to(acts.device), special)
        if self.token == "all":
            return SiteActs(acts, lengths, "all", special)
        if self.token == "mean" or special is None:
            return mean(SiteActs(acts, lengths, "all"))
        picked = acts[torch.arange(len(acts), device=acts.device), special][:, None]
        return SiteActs(picked, _full(picked), "cls" if images else "eot")


def mean(found: SiteActs) -> SiteActs:
    """The mean over each pair's real positions."""
    total = (found.acts * found.real[:, :, None]).sum(1, keepdim=True) / found.lengths[:, None, None]
    return SiteActs(total, _full(total), "mean")


def _full(acts: Float[Tensor, "pair pos d_in"]) -> Int64[Tensor, " pair"]:
    return torch.full((len(acts),), acts.shape[1], dtype=torch.int64, device=acts.device)


def _lengths(tokens: Int[Tensor, "pair context"], special: Int64[Tensor, " pair"]) -> Int64[Tensor, " pair"]:
    """Positions up to the last one that is no padding (id 0), the special position included."""
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    last = torch.where(tokens != 0, places, 0).amax(1)
    return torch.maximum(last, special + 1)


def finite(batch: ReadBatch, number: int) -> None:
    """Stop at nan or inf.

    Raises:
        NonFiniteError: names the site, the batch and its first bad pair.
    """
    for site, found in batch.sites.items():
        low, high = torch.aminmax(found.acts)  # one pass, and nan goes through
        if torch.isfinite(low) and torch.isfinite(high):
            continue
        bad = ~torch.isfinite(found.acts).flatten(1).all(1)
        first = batch.decoded.ids[int(bad.nonzero()[0, 0])]
        raise NonFiniteError(
            expected=f"finite activations at {site}",
            found=f"nan or inf in batch {number}, first in pair {first!r}",
            fix="look at that pair and at the model's dtype (half precision overflows: try float32)",
        )


def decoded_batches(decoder: Decoder, batches: Iterable[Places], workers: int = 0) -> Iterator[Decoded]:
    """The batches in order, decoded here (workers=0) or ahead of time in worker processes."""
    if workers <= 0:
        yield from (decoder[places] for places in batches)
        return
    yield from DataLoader(
        decoder,  # type: ignore[arg-type]
        batch_size=None,
        sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=2,
    )


class Stream(Iterator[PairedActs]):
    """Activations of pairs, batch after batch. `truncated` counts captions cut to the context, so far."""

    def __init__(
        self,
        clip: HookedCLIP,
        pairs: Pairs,
        sites: Sequence[Site],
        *,
        token: str,
        batch_size: int,
        quarantine: Quarantine,
        workers: int,
    ) -> None:
        self.pairs = pairs
        self.quarantine = quarantine
        self.truncated = 0
        self._at = _one_per_side(sites)
        self._reader = Reader(clip, sites, token)
        if token in ("all", "patches") and len(self._at) > 1:
            raise InputError(
                expected=f"one tower for token={token!r}: only one row per pair keeps both towers in step",
                found="both",
                fix="read the towers one at a time, or use token='auto' or 'mean'",
            )
        places = np.split(np.arange(len(pairs)), range(batch_size, len(pairs), batch_size))
        decoded = decoded_batches(self._reader.decoder(pairs), places, workers)
        self._batches = self._read(decoded)

    def __next__(self) -> PairedActs:
        return next(self._batches)

    def _read(self, batches: Iterable[Decoded]) -> Iterator[PairedActs]:
        with tqdm(total=len(self.pairs), desc="reading activations", unit="pair", delay=2) as bar:
            for number, decoded in enumerate(batches):
                for pair, reason in decoded.bad:
                    self.quarantine.add(pair, reason)
                if decoded.bad:
                    self.quarantine.check(len(self.pairs))
                bar.update(len(decoded.ids) + len(decoded.bad))
                if not decoded.ids:
                    continue
                batch = self._reader.read(decoded)
                finite(batch, number)
                self.truncated += batch.truncated
                yield self._paired(batch)

    def _paired(self, batch: ReadBatch) -> PairedActs:
        rows = {side: batch.sites[site].rows() for side, site in self._at.items()}
        ids = batch.decoded.ids
        site = next(iter(self._at.values()))
        if not batch.sites[site].one_each:
            lengths = batch.sites[site].lengths.tolist()
            ids = tuple(i for i, n in zip(ids, lengths, strict=True) for _ in range(n))
        return PairedActs(ids, rows.get("vision"), rows.get("text"))


def stream(
    clip: HookedCLIP,
    pairs: Pairs,
    sites: Sequence[Site],
    *,
    token: str = "auto",
    batch_size: int = 64,
    quarantine: Quarantine | None = None,
    workers: int = 0,
) -> Stream:
    """Activations of pairs at one site per tower, in the order of the pairs, float32, on the model's device.

    Args:
        clip: the model.
        pairs: what to show it.
        sites: one site, or one of each tower.
        token: see `Reader`. With "all" and "patches" a pair has many rows, which repeat its id.
        batch_size: pairs per batch; bad ones are dropped from it, from both sides.
        quarantine: where bad pairs go; None keeps them in memory and stops at the usual fraction.
        workers: processes that decode images; 0 decodes here.

    Raises:
        NonFiniteError: nan or inf; names batch, site and first pair.
        PairsError: too many bad pairs.
        UnknownNameError: no such hook.
    """
    held = Quarantine() if quarantine is None else quarantine
    return Stream(clip, pairs, sites, token=token, batch_size=batch_size, quarantine=held, workers=workers)


def _one_per_side(sites: Sequence[Site]) -> dict[Side, Site]:
    at: dict[Side, Site] = {}
    for side in SIDES:
        here = [s for s in dict.fromkeys(sites) if s.side == side]
        if len(here) > 1:
            raise InputError(
                expected="at most one site per tower",
                found=", ".join(map(str, here)),
                fix="stream them one at a time, or harvest them together into a cache",
            )
        if here:
            at[side] = here[0]
    return at
