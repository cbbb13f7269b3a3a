"""Compute the activation of each latent at every patch or token of its strongest samples.

The model runs again on those samples, and the dictionary encodes every position. If the dictionary was trained on one
position per sample (CLS, EOT or a mean), the other positions are outside its training distribution, so treat the result
as a hint.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cliplens.hooked import HookedCLIP, HookedTower, patch_grid, special_mask
from cliplens.pairs import Pairs
from cliplens.pictures import AS_SEEN
from cliplens.records import Exemplars, Pair, PairedActs, PositionActivations, Positions, SparseCodes
from cliplens.sae import Dictionary
from cliplens.sites import Modality, Site
from cliplens.stream import SiteActs, SiteReader, decoded_batches

TOP = 8
"""Number of strongest samples of each latent that are read again."""
MOST_PAIRS = 20_000
"""Maximum number of pairs that are read again; every latent's strongest comes before any latent's second."""
_ROWS = 4096

Wanted = Mapping[str, list[tuple[int, int]]]
"""The latents that have a pair among their strongest samples, with its rank, by pair id."""


def positions_of(
    clip: HookedCLIP,
    dictionary: Dictionary,
    sites: Sequence[Site],
    exemplars: Mapping[Modality, Exemplars | None],
    *,
    batch_size: int = 64,
    autocast: str | None = None,
    workers: int = 0,
) -> Positions:
    """Return activations at every position of the strongest exemplars, for sites with more than one position.

    Args:
        clip: the model that the dictionary was trained on.
        dictionary: the dictionary.
        sites: sites of the dictionary, at most one per tower.
        exemplars: exemplars by modality, with images that can still be opened.
        batch_size: pairs per forward; fewer if a sample has many positions.
        autocast: see `cliplens.stream.SiteReader`.
        workers: number of processes that decode images.
    """
    found: dict[tuple[Modality, int, int], PositionActivations] = {}
    for site in sites:
        shown = exemplars.get(site.modality)
        if shown is not None:
            reader = SiteReader(clip, [site], "all", autocast)
            found.update(_at_site(reader, dictionary, site, shown, batch_size, workers))
    return found


def _at_site(
    reader: SiteReader, dictionary: Dictionary, site: Site, exemplars: Exemplars, batch_size: int, workers: int
) -> dict[tuple[Modality, int, int], PositionActivations]:
    wanted = strongest_first(exemplars)
    by_id = {pair.id: pair for pair in exemplars.pairs if pair.id in wanted}
    pairs = _read_again(list(by_id.values()))
    tower = reader.clip.vision if site.side == "vision" else reader.clip.text
    assert tower is not None
    found: dict[tuple[Modality, int, int], PositionActivations] = {}
    size = max(1, min(batch_size, _ROWS // tower.cfg.n_ctx))
    places = np.split(np.arange(len(pairs)), range(size, len(pairs), size))
    for decoded in decoded_batches(reader.decoder(pairs), places, workers):
        if not decoded.ids:
            continue
        batch = reader.read(decoded)
        acts = batch.sites[site]
        if acts.one_each:
            return {}
        here = _Batch(tower, acts, batch.tokens, decoded.captions)
        codes = dictionary.encode(here.rows(decoded.ids, site.modality)).of(site.modality)
        assert codes is not None
        for row, pair_id in enumerate(decoded.ids):
            latents, ranks = zip(*wanted[pair_id], strict=True)
            for latent, rank, values in zip(latents, ranks, here.values(codes, row, latents), strict=True):
                found[site.modality, latent, rank] = here.heat(row, values)
    return found


def strongest_first(exemplars: Exemplars) -> Wanted:
    """Return, for each pair id, the latents that have the pair among their strongest samples."""
    wanted: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for rank in range(min(TOP, exemplars.at.shape[1])):
        for latent in np.flatnonzero(exemplars.at[:, rank] >= 0).tolist():
            pair_id = exemplars.pairs[exemplars.at[latent, rank]].id
            if pair_id in wanted or len(wanted) < MOST_PAIRS:
                wanted[pair_id].append((latent, rank))
    return wanted


def _read_again(pairs: Sequence[Pair]) -> Pairs:
    opening = pairs[0].opening if pairs else AS_SEEN
    return Pairs(
        [p.id for p in pairs], [p.source for p in pairs], [p.caption for p in pairs], name="exemplars", opening=opening
    )


class _Batch:
    """The positions of a batch of samples at one site that represent a patch or a word."""

    def __init__(
        self, tower: HookedTower, acts: SiteActs, tokens: Tensor | None, captions: Sequence[str] | None
    ) -> None:
        self._captions, self._tokens, self._tower = captions, tokens, tower
        self.grid: tuple[int, int] | None = None
        if tower.cfg.side == "vision":
            leading = tower.n_special if acts.acts.shape[1] == tower.cfg.n_ctx else 0
            self._acts = acts.acts[:, leading:]
            self.grid = patch_grid(self._acts.shape[1], tower.cfg.image_size)
        else:
            self._acts = acts.acts

    @property
    def n_positions(self) -> int:
        return int(self._acts.shape[1])

    def rows(self, ids: Sequence[str], modality: Modality) -> PairedActs:
        """Return every position as a separate row, sample by sample."""
        rows = self._acts.reshape(-1, self._acts.shape[2])
        repeated = tuple(pair_id for pair_id in ids for _ in range(self.n_positions))
        return PairedActs(repeated, rows, None) if modality == "image" else PairedActs(repeated, None, rows)

    def values(self, codes: SparseCodes, row: int, latents: Sequence[int]) -> Float[np.ndarray, "latent position"]:
        """Return the activations of some latents at every position of one sample."""
        first = row * self.n_positions
        begin, end = torch.searchsorted(codes.rows, torch.tensor([first, first + self.n_positions]).to(codes.rows))
        dense = torch.zeros(codes.d_sae, self.n_positions, dtype=codes.values.dtype, device=codes.values.device)
        dense[codes.latents[begin:end], codes.rows[begin:end] - first] = codes.values[begin:end]
        return dense[list(latents)].double().cpu().numpy()

    def heat(self, row: int, values: Float[np.ndarray, " position"]) -> PositionActivations:
        """Return a latent's activations in a sample, without start token, end token and padding of a caption."""
        if self._tower.cfg.side == "vision":
            return PositionActivations(values, self.grid or (1, len(values)))
        assert self._captions is not None
        assert self._tokens is not None
        places, spans = self._words(row)
        return PositionActivations(values[places], None, spans)

    def _words(self, row: int) -> tuple[Int64[np.ndarray, " word"], tuple[tuple[int, int], ...]]:
        assert self._tokens is not None
        assert self._captions is not None
        tokens = self._tokens[row : row + 1]
        mask = special_mask(self._tower, tokens)[0, : self.n_positions].cpu().numpy()
        places = np.flatnonzero(~mask)
        pieces = [self._tower.tokenizer.decode([int(tokens[0, p])]) for p in places]
        return places, spans_of(self._captions[row], pieces)


def spans_of(caption: str, pieces: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the character span of each token of a caption, given as text; letter case is ignored.

    A token that is not found (a tokenizer may rewrite text) gets an empty span.
    """
    text = caption.lower()
    spans, at = [], 0
    for piece in pieces:
        word = piece.strip().lower()
        start = text.find(word, at) if word else -1
        end = start + len(word)
        if start < 0:
            spans.append((at, at))
        else:
            spans.append((start, end))
            at = end
    return tuple(spans)
