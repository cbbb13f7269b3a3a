"""Finding latents by words: which latents of a run say "red", ranked by four kinds of evidence.

Names alone mislead: a latent named red may fire on one picture in two hundred. So each candidate is also measured on
the run's own pairs, by the captions that say the words.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt64

from cliplens import keys
from cliplens.errors import InputError, unknown_name
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Pairs
from cliplens.records import LatentTable, PairedActs, SparseCodes
from cliplens.run.dictionary import trained_on
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary
from cliplens.settings import Settings
from cliplens.sites import MODALITIES, Modality, Site
from cliplens.store import Cache

UNNAMED = "unnamed"
NAME_COLUMNS = ("name", "name_image", "name_text")
PAIRS = 4096
"""Pairs the evidence is measured on, at most."""
LEAST_PAIRS = 10
"""Pairs that must say the words for their evidence to count."""
_SEED = 41
GOOD = 0.15
"""Correlation of a latent's code with the words from which it is a good candidate."""


@runtime_checkable
class Searchable(Protocol):
    """The parts of an opened run that finding needs."""

    @property
    def folder(self) -> RunFolder: ...
    @property
    def asked(self) -> Settings: ...
    @property
    def clip(self) -> HookedCLIP: ...
    @property
    def dictionary(self) -> Dictionary: ...
    @property
    def table(self) -> LatentTable: ...
    @property
    def pairs(self) -> Pairs: ...


@dataclass(frozen=True)
class Candidate:
    """A latent that may stand for the words, with what speaks for it. All figures but `level` lie in [0, 1]."""

    latent: int
    name: str | None
    name_match: float
    """1: the words are its name, or one of the synonyms in it; 0.5: they occur in its name; 0: neither."""
    text_match: float
    """Its code of the words, run through the text tower, relative to the latent that fires most; nan without one."""
    evidence: float
    """Correlation of its code with whether the caption says the words, at least 0; nan where too few captions do."""
    reach: float
    """Share of the pairs that say the words on which it fires; nan as `evidence`."""
    level: float
    """Mean code on pairs that say the words, in the dictionary's units; nan as `evidence`."""

    @property
    def score(self) -> float:
        """The mean of the four figures; those that are not known count 0."""
        return float(np.nan_to_num([self.name_match, self.text_match, self.evidence, self.reach]).mean())

    @property
    def good(self) -> bool:
        """Whether it may stand for the words: its codes say so, or its name where no caption can."""
        return self.name_match == 1.0 if np.isnan(self.evidence) else self.evidence >= GOOD


@dataclass(frozen=True, eq=False)
class Finder:
    """Finds latents of one run for one modality. Codes of the run's pairs are read once, when first needed."""

    run: Searchable
    modality: Modality = "image"

    def find(self, words: str, count: int = 10) -> list[Candidate]:
        """Return the latents that may stand for the words, best first, at most `count`.

        Raises:
            InputError: the words are empty, or "unnamed", which is no name.
            UnknownNameError: no latent has any evidence for them; the nearest names are listed.
        """
        table = self.run.table
        matches, synonyms = name_matches(table, words)
        said = self._said({words.casefold(), *synonyms})
        text = self._text_codes(words)
        nothing = np.full(len(table), np.nan)
        evidence, reach, level = self._measured(said) if int(said.sum()) >= LEAST_PAIRS else (nothing,) * 3
        names = _names(table)
        found = [
            Candidate(k, names[k], *(float(v[k]) for v in (matches, text, evidence, reach, level)))
            for k in range(len(table))
        ]
        kept = [c for c in found if c.good or c.name_match > 0 or c.text_match == 1.0]
        if not any(c.good for c in kept):
            raise unknown_name("latent", words, {n for n in names if n and n != UNNAMED})
        return sorted(kept, key=lambda c: (not c.good, -c.score, c.latent))[:count]

    def mean_codes(self, words: str) -> Float[np.ndarray, " d_sae"] | None:
        """Return the mean code of each latent over pairs whose captions say the words; None where too few do."""
        said = self._said({words.casefold(), *name_matches(self.run.table, words)[1]})
        return self._measured(said)[2] if int(said.sum()) >= LEAST_PAIRS else None

    @cached_property
    def _rows(self) -> tuple[SparseCodes, list[str]]:
        """Codes of pairs the dictionary was trained on, and their captions."""
        parts: list[SparseCodes] = []
        ids: list[str] = []
        for acts in self._acts():
            encoded = self.run.dictionary.encode(acts).of(self.modality)
            assert encoded is not None
            parts.append(encoded)
            ids += acts.ids
            if len(ids) >= PAIRS:
                break
        if not self.run.pairs.has_captions:
            parts, ids = [], []
        return _joined(parts, self.run.dictionary.d_sae), self._captions(ids)

    def _acts(self) -> Iterator[PairedActs]:
        source = self.run.dictionary.provenance
        sites = [Site.parse(name) for name in source.sites] if source else []
        mine = [s for s in sites if s.modality == self.modality]
        if not mine or not (self.run.folder.activations / "manifest.json").exists():
            return
        cache = Cache.open(self.run.folder.activations).by_picture(self.run.pairs.image_ids)
        where = {m: mine[0] if m == self.modality else None for m in MODALITIES}
        trained = trained_on(self.run.asked) if self.run.asked.sae is None else None
        share = 1.2 * PAIRS / max(1, len(cache))

        def keep(of_pair: UInt64[np.ndarray, " pair"]) -> Bool[np.ndarray, " pair"]:
            # Pairs lie in the order they were given, so a sample is spread over all of them.
            drawn = keys.hashed_uniform(of_pair, _SEED) < share
            return drawn if trained is None else drawn & np.asarray(trained(of_pair))

        yield from cache.batches(where["image"], where["text"], keep=keep, batch_size=512)

    def _captions(self, ids: Sequence[str]) -> list[str]:
        pairs = self.run.pairs
        row_of = {i: row for row, i in enumerate(pairs.ids)}
        return [str(pairs.captions[row_of[i]] or "") for i in ids]

    def _said(self, phrases: set[str]) -> Bool[np.ndarray, " row"]:
        pattern = re.compile("|".join(rf"\b{re.escape(p)}\b" for p in sorted(phrases)), re.IGNORECASE)
        return np.array([bool(pattern.search(caption)) for caption in self._rows[1]], dtype=bool)

    def _measured(
        self, said: Bool[np.ndarray, " row"]
    ) -> tuple[Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"]]:
        """Return correlation with the words, and firing rate and mean code where the captions say them."""
        codes, label = self._rows[0], torch.from_numpy(said).double()
        rows, latents, values = codes.rows.cpu(), codes.latents.cpu(), codes.values.double().cpu()
        total, squares, with_label, fired = (
            torch.zeros(codes.d_sae, dtype=torch.float64).index_add_(0, latents, v)
            for v in (values, values**2, values * label[rows], (values > 0).double() * label[rows])
        )
        n, n_said = codes.n_rows, float(label.sum())
        covariance = with_label / n - total / n * label.mean()
        spread = (squares / n - (total / n) ** 2).clamp_min(0).sqrt() * label.std(unbiased=False)
        evidence = torch.where(spread > 0, covariance / spread.clamp_min(1e-12), 0.0).clamp(0, 1)
        return evidence.numpy(), (fired / n_said).numpy(), (with_label / n_said).numpy()

    def _text_codes(self, words: str) -> Float[np.ndarray, " d_sae"]:
        """Codes of the words themselves, relative to the largest; nan where the dictionary does not read text."""
        dictionary, clip = self.run.dictionary, self.run.clip
        source = dictionary.provenance
        sites = [Site.parse(n) for n in source.sites] if source else []
        mine = [s for s in sites if s.side == "text"]
        tower = clip.towers.get("text")
        if not mine or clip.tokenizer is None or tower is None:
            return np.full(dictionary.d_sae, np.nan)
        with torch.no_grad():
            tokens = clip.tokenizer([words])
            acts = tower.read(tokens, [mine[0].hook])[mine[0].hook]
            row = acts[:, 0] if acts.shape[1] == 1 else acts[[0], tower.special_position(tokens)]
            codes = dictionary.encode(PairedActs((words,), None, row.flatten(1).float())).text
        assert codes is not None
        dense = codes.dense()[0].double().cpu().numpy()
        return dense / max(float(dense.max()), 1e-12)


def _joined(parts: Sequence[SparseCodes], d_sae: int) -> SparseCodes:
    """Return the codes of all parts, row after row."""
    starts = np.cumsum([0, *(p.n_rows for p in parts)])
    rows = [p.rows + int(start) for p, start in zip(parts, starts[:-1], strict=True)]
    empty = [torch.zeros(0, dtype=torch.int64)]
    return SparseCodes(
        torch.cat(rows or empty),
        torch.cat([p.latents for p in parts] or empty),
        torch.cat([p.values for p in parts] or [torch.zeros(0)]),
        int(starts[-1]),
        d_sae,
    )


def name_matches(table: LatentTable, words: str) -> tuple[Float[np.ndarray, " latent"], set[str]]:
    """Return how well each latent's names match the words, and the synonyms of the names that match.

    Raises:
        InputError: the words are empty, or "unnamed", which is no name.


    A name such as "red / crimson" lists synonyms. 1: the words are the name or one of its synonyms. 0.5: they occur in
    it. 0: neither.
    """
    _check_words(words)
    wanted, synonyms = words.casefold().strip(), set()
    matches = np.zeros(len(table))
    for column in (c for c in NAME_COLUMNS if c in table):
        for k, name in enumerate(table[column]):
            if not name or name == UNNAMED:
                continue
            parts = [part.strip() for part in str(name).casefold().split(" / ")]
            if wanted in (*parts, str(name).casefold()):
                matches[k] = 1.0
                synonyms |= set(parts)
            elif matches[k] < 1 and re.search(rf"\b{re.escape(wanted)}\b", str(name).casefold()):
                matches[k] = 0.5
    return matches, synonyms


def _names(table: LatentTable) -> list[str | None]:
    column = next((c for c in NAME_COLUMNS if c in table), None)
    return [None] * len(table) if column is None else [None if n is None else str(n) for n in table[column]]


def _check_words(words: str) -> None:
    if not words.strip() or words.strip().casefold() == UNNAMED:
        raise InputError(
            expected="words that name a latent",
            found=repr(words) + (", which marks latents without a name" if words.strip() else ""),
            fix="give the latents by number, such as 17, or words such as 'red'",
        )
