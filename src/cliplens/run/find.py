"""Find the latents of a run for some words, such as "red", ranked by four kinds of evidence.

Names alone are not reliable: a latent named red may fire on one image in two hundred. Candidates are therefore also
measured on pairs of the run whose captions contain the words.
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
from cliplens.errors import InputError, UnknownNameError, unknown_name
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Pairs
from cliplens.records import LatentTable, PairedActs, SparseCodes
from cliplens.run.captioned import CaptionedRows, whole
from cliplens.run.chance import reached_by_chance
from cliplens.run.dictionary import trained_on
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary
from cliplens.settings import Settings
from cliplens.sites import MODALITIES, Modality, Site
from cliplens.store import Cache

UNNAMED = "unnamed"
NAME_COLUMNS = ("name", "name_image", "name_text")
PAIRS = 4096
"""Maximum number of pairs on which evidence is measured."""
LEAST_PAIRS = 10
"""Minimum number of captions with the words for evidence to be measured."""
_SEED = 41
GOOD = 0.15
"""Minimum correlation of a latent's code with the words for a good candidate; with few pairs, what chance reaches."""

CERTAIN = 0.9
"""Correlation of a code of captions that is enough whatever chance reaches: of few texts, each may have a latent of its
own. Codes of few pictures have no such excuse, because captions say more than one thing of a picture."""


@runtime_checkable
class Searchable(Protocol):
    """The parts of an opened run that `Finder` needs."""

    @property
    def folder(self) -> RunFolder: ...
    @property
    def asked(self) -> Settings: ...
    @property
    def dictionary(self) -> Dictionary: ...
    @property
    def table(self) -> LatentTable: ...
    @property
    def pairs(self) -> Pairs: ...


@dataclass(frozen=True)
class Candidate:
    """A latent that may represent the words, with its evidence. All figures except `level` are in [0, 1]."""

    latent: int
    name: str | None
    name_match: float
    """1 if the words are its name or a synonym in its name, 0.5 if they occur in its name, else 0."""
    text_match: float
    """Its code when the words are encoded by the text tower, relative to the largest code; nan without text codes."""
    evidence: float
    """Correlation of its code with the presence of the words in the caption, at least 0; nan with too few captions."""
    reach: float
    """Share of the pairs with the words in the caption on which it fires; nan with too few captions."""
    level: float
    """Mean code on the pairs with the words in the caption; nan with too few captions."""
    needed: float = GOOD
    """Evidence of a good candidate."""

    @property
    def score(self) -> float:
        """Mean of the four figures; nan counts as 0."""
        return float(np.nan_to_num([self.name_match, self.text_match, self.evidence, self.reach]).mean())

    @property
    def good(self) -> bool:
        """Whether `evidence` is high enough or, if there is none, the words are the name of the latent."""
        return self.name_match == 1.0 if np.isnan(self.evidence) else self.evidence >= self.needed


@dataclass(frozen=True, eq=False)
class Finder:
    """Finds latents of a run for one modality. Codes of the run's pairs are computed once, on first use."""

    run: Searchable
    modality: Modality = "image"

    def find(self, words: str, count: int = 10) -> list[Candidate]:
        """Return at most `count` latents that may represent the words, best first.

        Raises:
            InputError: the words are empty or "unnamed".
            UnknownNameError: no latent is a good candidate; similar names are listed.
        """
        table = self.run.table
        matches, _ = name_matches(table, words)
        rows, text = self._rows, self._text_codes(words)
        said = rows.saying(self._phrases(words))
        enough = rows.pairs(said) >= LEAST_PAIRS
        evidence, reach, level = rows.measured(said) if enough else (np.full(len(table), np.nan),) * 3
        names = _names(table)
        needed = self._needed(said) if enough else GOOD
        columns = zip(names, matches, text, evidence, reach, level, strict=True)
        found = [
            Candidate(k, name, float(match), float(code), float(corr), float(rate), float(size), needed)
            for k, (name, match, code, corr, rate, size) in enumerate(columns)
        ]
        kept = [c for c in found if c.good or c.name_match > 0 or c.text_match == 1.0]
        if not any(c.good for c in kept):
            known, count_said = {n for n in names if n and n != UNNAMED}, rows.pairs(said)
            best = max((c.evidence for c in found if not np.isnan(c.evidence)), default=0.0)
            if enough and (best >= GOOD or not known):
                raise UnknownNameError(
                    expected=f"a latent whose code goes with {words!r} more than chance allows",
                    found=f"{count_said} captions with it among {len(set(rows.ids))}, "
                    f"a highest correlation of {best:.2f}, and {needed:.2f} "
                    f"{'by chance' if needed > GOOD else 'as the least'}",
                    fix="use more pairs, or edit a latent by its number (`steer --edit 17=+4`)",
                )
            if not known:
                raise UnknownNameError(
                    expected="a run whose latents have names, or captions that contain the words",
                    found=f"no name, and {count_said} captions with {words!r}, where {LEAST_PAIRS} are needed",
                    fix="score more pairs, or look in the report and edit by number (`steer --edit 17=+4`)",
                )
            raise unknown_name("latent", words, known)
        return sorted(kept, key=lambda c: (not c.good, -c.score, c.latent))[:count]

    def mean_codes(self, words: str) -> Float[np.ndarray, " d_sae"] | None:
        """Return the mean code of each latent over pairs with the words in the caption; None with too few of them."""
        said = self._rows.saying(self._phrases(words))
        return self._rows.measured(said)[2] if self._rows.pairs(said) >= LEAST_PAIRS else None

    def _phrases(self, words: str) -> set[str]:
        """Return the words and their synonyms by names of latents whose codes go with the words themselves."""
        bare = self._rows.saying({words.casefold()})
        if self._rows.pairs(bare) < LEAST_PAIRS:
            return {words.casefold()}
        trusted = self._rows.measured(bare)[0] >= self._needed(bare)
        return {words.casefold(), *name_matches(self.run.table, words, trusted)[1]}

    @cached_property
    def _rows(self) -> CaptionedRows:
        """Rows of pairs that the dictionary was trained on; none where the pairs have no captions."""
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
        codes = SparseCodes.joined(parts, self.run.dictionary.d_sae)
        return CaptionedRows(codes, ids, self._captions(ids), self._units(ids))

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
            # Pairs are stored in the order of the source, so spread the sample over all of them.
            drawn = keys.hashed_uniform(of_pair, _SEED) < share
            return drawn if trained is None else drawn & np.asarray(trained(of_pair))

        yield from cache.batches(where["image"], where["text"], keep=keep, batch_size=512)

    def _needed(self, said: Bool[np.ndarray, " row"]) -> float:
        needed = max(GOOD, reached_by_chance(self._rows.codes, said, units=self._rows.units))
        return min(needed, CERTAIN) if self.modality == "text" else needed

    def _units(self, ids: Sequence[str]) -> list[str]:
        """Return the picture of each row; for codes of captions, the caption text where fewer of these differ."""
        pairs = self.run.pairs
        row_of = pairs.indices(ids)
        columns = [pairs.image_ids, pairs.caption_ids] if self.modality == "text" else [pairs.image_ids]
        return min(([of[row_of[i]] for i in ids] for of in columns), key=lambda units: len(set(units)))

    def _captions(self, ids: Sequence[str]) -> list[str]:
        pairs = self.run.pairs
        row_of = pairs.indices(ids)
        return [str(pairs.caption_at(row_of[i]) or "") for i in ids]

    def _text_codes(self, words: str) -> Float[np.ndarray, " d_sae"]:
        """Codes of the words themselves, relative to the largest; nan without a model or a text side."""
        dictionary = self.run.dictionary
        if self.run.asked.embeddings:
            return np.full(dictionary.d_sae, np.nan)
        clip: HookedCLIP = self.run.clip  # type: ignore[attr-defined]  # no part of Searchable: embeddings have none
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


def name_matches(
    table: LatentTable, words: str, trusted: Bool[np.ndarray, " latent"] | None = None
) -> tuple[Float[np.ndarray, " latent"], set[str]]:
    """Return how well the names of each latent match the words, and the synonyms in matching names.

    A name such as "red / crimson" lists synonyms. The match is 1 if the words are the name or one of its synonyms, 0.5
    if they occur in it, else 0. Only names of `trusted` latents give synonyms, by default all.

    Raises:
        InputError: the words are empty or "unnamed".
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
                synonyms |= set(parts) if trusted is None or trusted[k] else set()
            elif matches[k] < 1 and re.search(whole(wanted), str(name).casefold()):
                matches[k] = 0.5
    return matches, synonyms


def _names(table: LatentTable) -> list[str | None]:
    column = next((c for c in NAME_COLUMNS if c in table), None)
    return [None] * len(table) if column is None else [None if n is None else str(n) for n in table[column]]


def _check_words(words: str) -> None:
    if not words.strip() or words.strip().casefold() == UNNAMED:
        raise InputError(
            expected="words to find latents for",
            found=repr(words) + (", which marks latents without a name" if words.strip() else ""),
            fix="pass words such as 'red', or latents by number, such as 17",
        )
