"""Read the activations of both towers for pairs, batch by batch.

Row i of the image activations and row i of the text activations belong to the same pair: when the image or the caption
of a pair cannot be used, both are dropped. The rows of a batch depend on the model and on the pairs of that batch only.
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

from cliplens.deprecation import deprecated_names
from cliplens.errors import InputError, MismatchError, NonFiniteError, unknown_name
from cliplens.hooked import CompiledReading, HookedCLIP, HookedTower
from cliplens.pairs import Decoded, Decoder, Pairs, Quarantine, tokenised
from cliplens.records import PairedActs
from cliplens.sites import SIDES, Side, Site, as_sites

Token = Literal["auto", "cls", "eot", "mean", "patches", "all"]
TOKENS: tuple[str, ...] = get_args(Token)
AUTOCASTS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_ONE_SIDE: dict[str, Side] = {"cls": "vision", "patches": "vision", "eot": "text"}
Indices = Int64[np.ndarray, " _"]
"""Indices of pairs; batches differ in length, so the axis has no name."""


@dataclass(frozen=True)
class SiteActs:
    """Activations of a batch at one site after the token choice; positions at and after `lengths` are padding."""

    acts: Float[Tensor, "pair pos d_in"]
    lengths: Int64[Tensor, " pair"]
    token: str
    """The token choice: cls, eot, single (the hook has one position), mean, patches or all."""
    special: Int64[Tensor, " pair"] | None = None
    """With "all": the position of CLS or EOT in each sample."""

    @property
    def one_each(self) -> bool:
        """Whether every pair has exactly one row."""
        return self.acts.shape[1] == 1

    def rows(self) -> Float[Tensor, "row d_in"]:
        """Return the rows without padding, pair after pair."""
        return self.acts[:, 0] if self.one_each else self.acts[self.real]

    @property
    def real(self) -> Bool[Tensor, "pair pos"]:
        """True at positions that are not padding."""
        return torch.arange(self.acts.shape[1], device=self.acts.device) < self.lengths[:, None]


@dataclass(frozen=True)
class ReadBatch:
    """Activations at every site of the usable pairs of one batch, with the pairs as decoded."""

    decoded: Decoded
    sites: Mapping[Site, SiteActs]
    tokens: Int64[Tensor, "pair context"] | None
    truncated: int


class SiteReader:
    """Read activations at sites of both towers, in one forward pass per tower that stops after the deepest site.

    Args:
        clip: the model.
        sites: sites, or their names; several per tower are allowed.
        token: the position that represents a sample at hooks with more than one position: "auto" takes CLS for images
            (the mean in towers without a class token) and EOT for captions; "mean" averages the positions that are not
            padding; "all" keeps them all; "patches" keeps those of an image without CLS.
        autocast: "bfloat16" or "float16" runs matrix products in that dtype (`torch.autocast`); rows are float32.
        compiled: largest number of pairs per batch for `torch.compile` (`cliplens.hooked.CompiledReading`); results
            agree up to rounding. None runs the model as it is.

    Raises:
        UnknownNameError: no such hook, or no such token choice.
        InputError: a token choice of one tower, for sites of both.
    """

    def __init__(
        self,
        clip: HookedCLIP,
        sites: Sequence[Site | str],
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
        self.sites = as_sites(sites)
        self.token = token
        self.widths = {site: clip.width(site) for site in self.sites}
        if not self.sites:
            raise InputError(
                expected="at least one site to read", found="none", fix="pass a hook such as 'hook_embedding'"
            )
        wrong = [str(s) for s in self.sites if _ONE_SIDE.get(token, s.side) != s.side]
        if wrong:
            raise InputError(
                expected=f"sites of the {_ONE_SIDE[token]} tower for token={token!r}",
                found=", ".join(wrong),
                fix="pass token='auto', or read the towers one at a time",
            )
        if self.reads("text") and clip.text is None:
            raise InputError(
                expected="a model with a text tower",
                found=clip.identity.name,
                fix="read sites of its vision tower only",
            )

    def reads(self, side: Side) -> bool:
        """Return whether any site lies in that tower."""
        return any(s.side == side for s in self.sites)

    def decoder(self, pairs: Pairs) -> Decoder:
        """Return a decoder that prepares these pairs for the towers that are read.

        Raises:
            InputError: the pairs lack images or captions, or the model has no preprocess or tokenizer.
        """
        for side, has, what in (("vision", pairs.has_images, "images"), ("text", pairs.has_captions, "captions")):
            if self.reads(side) and not has:  # type: ignore[arg-type]
                raise InputError(
                    expected=f"pairs with {what}, which {side} sites need",
                    found=f"{pairs.name!r} without {what}",
                    fix=f"name the column of {what}, or read the other tower only (--tower)",
                )
        for side, tool, what in (
            ("vision", self.clip.preprocess, "preprocess"),
            ("text", self.clip.tokenizer, "tokenizer"),
        ):
            if self.reads(side) and tool is None:  # type: ignore[arg-type]
                raise InputError(
                    expected=f"a model with its {what}", found="none", fix=f"pass it: cliplens.wrap(model, {what}=...)"
                )
        return Decoder(pairs, self.clip.preprocess if self.reads("vision") else None, self.reads("text"))

    @torch.no_grad()
    def read(self, decoded: Decoded) -> ReadBatch:
        """Return the activations of one decoded batch, float32, on the model's device."""
        out: dict[Site, SiteActs] = {}
        tokens, truncated = None, 0
        if decoded.pictures is not None and self.clip.vision is not None:
            images = decoded.pictures.on(self.clip.device).to(self.clip.dtype)
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
        vision = self.clip.vision
        leading = vision.n_special if vision is not None and images and acts.shape[1] == tower.cfg.n_ctx else 0
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
    """Return the mean over the positions of each pair that are not padding."""
    total = (found.acts * found.real[:, :, None]).sum(1, keepdim=True) / found.lengths[:, None, None]
    return SiteActs(total, _full(total), "mean")


def _full(acts: Float[Tensor, "pair pos d_in"]) -> Int64[Tensor, " pair"]:
    return torch.full((len(acts),), acts.shape[1], dtype=torch.int64, device=acts.device)


def _lengths(tokens: Int[Tensor, "pair context"], special: Int64[Tensor, " pair"]) -> Int64[Tensor, " pair"]:
    """Return the number of positions up to the last non-padding token (id 0 is padding) and the special position."""
    positions = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    last = torch.where(tokens != 0, positions, 0).amax(1)
    return torch.maximum(last, special + 1)


def finite(batch: ReadBatch, number: int) -> None:
    """Check that all activations of a batch are finite.

    Raises:
        NonFiniteError: some are nan or inf; names the site, the batch and the first bad pair.
    """
    for site, found in batch.sites.items():
        low, high = torch.aminmax(found.acts)  # one pass, and nan propagates
        if torch.isfinite(low) and torch.isfinite(high):
            continue
        bad = ~torch.isfinite(found.acts).flatten(1).all(1)
        first = batch.decoded.ids[int(bad.nonzero()[0, 0])]
        raise NonFiniteError(
            expected=f"finite activations at {site}",
            found=f"nan or inf in batch {number}, first in pair {first!r}",
            fix="check that pair, or load the model in float32 (half precision overflows)",
        )


def decoded_batches(decoder: Decoder, batches: Iterable[Indices], workers: int = 0) -> Iterator[Decoded]:
    """Decode batches in order, in this process (workers=0) or ahead of time in worker processes."""
    if workers <= 0:
        yield from (decoder[indices] for indices in batches)
        return
    yield from DataLoader(
        decoder,  # type: ignore[arg-type]
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        prefetch_factor=2,
        pin_memory=torch.cuda.is_available(),
    )


class Stream(Iterator[PairedActs]):
    """Iterate over the activations of pairs, batch by batch.

    `truncated` counts the captions cut to the model's context so far. `quarantine` holds the pairs left out so far.
    """

    def __init__(
        self,
        clip: HookedCLIP,
        pairs: Pairs,
        sites: Sequence[Site | str],
        *,
        token: str,
        forward_batch: int,
        quarantine: Quarantine,
        workers: int,
    ) -> None:
        self.pairs = pairs
        self.quarantine = quarantine
        self.truncated = 0
        self._at = _one_per_side(as_sites(sites))
        self._reader = SiteReader(clip, sites, token)
        if token in ("all", "patches") and len(self._at) > 1:
            raise InputError(
                expected=f"one tower for token={token!r}: only one row per pair keeps both towers in step",
                found="both",
                fix="read the towers one at a time, or pass token='auto' or 'mean'",
            )
        batches = np.split(np.arange(len(pairs)), range(forward_batch, len(pairs), forward_batch))
        decoded = decoded_batches(self._reader.decoder(pairs), batches, workers)
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
    sites: Sequence[Site | str],
    *,
    token: str = "auto",
    forward_batch: int = 64,
    quarantine: Quarantine | None = None,
    workers: int = 0,
) -> Stream:
    """Return an iterator over the activations of pairs at one site per tower.

    Batches are `PairedActs` in the order of the pairs, float32, on the model's device.

    Args:
        clip: the model.
        pairs: images and captions.
        sites: one site, or one of each tower, as `Site` or by name.
        token: see `SiteReader`. With "all" and "patches" a pair has many rows, which repeat its id.
        forward_batch: pairs per forward pass; bad pairs are dropped from it, image and caption together.
        quarantine: collects bad pairs; None keeps them in memory and allows 1 % of them.
        workers: processes that decode images; 0 decodes in this process.

    Raises:
        NonFiniteError: nan or inf in the activations; names batch, site and first pair.
        PairsError: too many bad pairs.
        UnknownNameError: no such hook.
    """
    held = Quarantine() if quarantine is None else quarantine
    return Stream(clip, pairs, sites, token=token, forward_batch=forward_batch, quarantine=held, workers=workers)


def _one_per_side(sites: Sequence[Site]) -> dict[Side, Site]:
    at: dict[Side, Site] = {}
    for side in SIDES:
        here = [s for s in sites if s.side == side]
        if len(here) > 1:
            raise InputError(
                expected="at most one site per tower",
                found=", ".join(map(str, here)),
                fix="read them one at a time, or harvest them together into a cache",
            )
        if here:
            at[side] = here[0]
    return at


__getattr__ = deprecated_names(__name__, {"Reader": "cliplens.stream:SiteReader", "Places": "cliplens.stream:Indices"})
