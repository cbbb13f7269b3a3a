"""Make the record of a finished study of words: findings in sentences, one table per question, notes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cliplens.studies import ScoredClasses, Study, with_interval
from cliplens_plugins.words.kinds import CLASSES, KindShare
from cliplens_plugins.words.languages import Bound, NameIn, SameThing
from cliplens_plugins.words.options import WordsOptions
from cliplens_plugins.words.presence import LatentWords, Words
from cliplens_plugins.words.standard import Label
from cliplens_plugins.words.taggers import KINDS
from cliplens_plugins.words.tokens import Coverage

LONG = 40
SHOWN = 20
"""Labels with a row of latents."""
FEW = 10
"""Fewer latents of a kind are too few for a sentence."""


@dataclass(frozen=True, eq=False)
class Languages:
    """The findings about languages."""

    covered: Sequence[Coverage]
    bound: Sequence[Bound]
    same: Sequence[SameThing]
    names: Mapping[str, Sequence[NameIn]]


@dataclass(frozen=True, eq=False)
class Kinds:
    """The findings about kinds of words."""

    tagger: str
    words: Words
    latents: LatentWords
    shares: Sequence[KindShare]
    untrained: Sequence[KindShare]


@dataclass(frozen=True, eq=False)
class Found:
    """The results of a study."""

    kinds: Kinds | None
    """None where no tagger is installed."""
    scored: ScoredClasses
    languages: Languages | None
    labels: Sequence[Label]


def record(found: Found, asked: WordsOptions, notes: Sequence[str] = ()) -> Study:
    """Return the record of a finished study: findings first, then one table per question."""
    tables: dict[str, Sequence[Mapping[str, Any]]] = _label_tables(found.labels) if found.labels else {}
    tables |= {} if found.kinds is None else _kind_tables(found.kinds)
    linked = {}
    if found.languages is not None:
        tables |= _language_tables(found.languages, found.scored)
        linked["Bound to a language"] = [b.latent for b in found.languages.bound if b.bound][:LONG]
    data: dict[str, Any] = {} if found.kinds is None else _kind_data(found.kinds)
    data["labels"] = [{"latent": k, **asdict(label)} for k, label in enumerate(found.labels)]
    if found.languages is not None:
        one = found.languages
        data["coverage"], data["bound"], data["same_thing"] = (
            [asdict(x) for x in part] for part in (one.covered, one.bound, one.same)
        )
        data["names"] = {language: [asdict(x) for x in names] for language, names in one.names.items()}
    return Study(
        name="words",
        title="Kinds of words and languages",
        findings=_findings(found),
        tables=tables,
        notes=tuple(notes) if found.kinds is None else (f"Words are tagged by {found.kinds.tagger}.", *notes, *NOTES),
        settings={k: str(v) if k in ("tagger", "vocabulary") and v else v for k, v in vars(asked).items()},
        latents=linked,
        data=data,
    )


NOTES = (
    "A latent stands for the word with which its codes correlate most on half of the pictures, if the correlation on "
    "the other half is at least .2. A latent that stands for no word is in no row.",
    "Intervals are over words, because latents of one word are alike. They do not cover another dictionary.",
    "`shuffled` is the range when the kinds are shuffled among the words, `random` that of random latents of the same "
    "number and firing rates. A share inside both says nothing about the kind.",
)


def _kind_tables(kinds: Kinds) -> dict[str, Sequence[Mapping[str, Any]]]:
    tables: dict[str, Sequence[Mapping[str, Any]]] = {
        "Modality class of the latents of each kind of words": [_share_row(s) for s in kinds.shares if s.latents],
        "Words that latents stand for": _word_rows(kinds),
    }
    if kinds.untrained:
        tables["The same with a dictionary that was never trained"] = [
            {"kind": s.kind, "class": s.modality, "latents": s.latents, "share": _cell(s.share, s.low, s.high)}
            for s in kinds.untrained
            if s.latents
        ]
    return tables


def _kind_data(kinds: Kinds) -> dict[str, Any]:
    return {
        "kinds": [asdict(s) for s in kinds.shares],
        "untrained": [asdict(s) for s in kinds.untrained],
        "latents": [
            {"latent": int(k), "word": kinds.words.words[w], "kind": kinds.words.kinds[w], "strength": float(s)}
            for k, (w, s) in enumerate(zip(kinds.latents.word, kinds.latents.strength, strict=True))
            if w >= 0
        ],
    }


def _share_row(s: KindShare) -> dict[str, Any]:
    return {
        "kind": s.kind,
        "class": s.modality,
        "words": s.words,
        "latents": s.latents,
        "share": _cell(s.share, s.low, s.high),
        "shuffled": f"{s.shuffled_low:.3f} to {s.shuffled_high:.3f}",
        "p": s.p,
        "random": _cell(s.random, s.random_low, s.random_high),
    }


def _cell(value: float, low: float, high: float) -> str | None:
    return None if np.isnan(value) else with_interval(value, low, high)


def _word_rows(found: Kinds) -> list[dict[str, Any]]:
    count = Counter(int(w) for w in found.latents.word if w >= 0)
    rows = []
    for kind in KINDS:
        mine = [w for w, _ in count.most_common() if found.words.kinds[w] == kind]
        rows.append(
            {
                "kind": kind,
                "words in the captions": sum(k == kind for k in found.words.kinds),
                "of them with a latent": len(mine),
                "most latents": ", ".join(f"{found.words.words[w]} {count[w]}" for w in mine[:8]),
            }
        )
    return rows


def _language_tables(one: Languages, scored: ScoredClasses) -> dict[str, Sequence[Mapping[str, Any]]]:
    tables: dict[str, Sequence[Mapping[str, Any]]] = {
        "What the tokenizer makes of each language": [
            {
                "language": c.language,
                "captions": c.captions,
                "pieces per word": c.pieces_per_word,
                "pieces per character": c.pieces_per_character,
                "parts of characters": c.broken,
                "unknown": c.unknown,
                "truncated": c.truncated,
            }
            for c in one.covered
        ]
    }
    if one.bound:
        tables["Latents bound to a language"] = [
            {
                "latent": b.latent,
                "class": str(scored.classes[b.latent]),
                "language": b.language,
                "share": b.share,
                "chance": b.chance,
                "languages": b.languages,
                "firings": b.firings,
            }
            for b in one.bound
            if b.bound
        ][:LONG]
    if one.same:
        tables["The same thing in another language: overlap of the latents that fire"] = [
            {
                "language": s.language,
                "pictures": s.pictures,
                "overlap": _cell(s.overlap, s.low, s.high),
                "another picture": s.other,
                "difference": _cell(s.gain, s.gain_low, s.gain_high),
            }
            for s in one.same
        ]
    for language, names in one.names.items():
        tables[f"Names in {language}"] = [
            {"latent": n.latent, "class": str(scored.classes[n.latent]), "name": n.word, "correlation": n.strength}
            for n in names[:LONG]
        ]
    return tables


def _label_tables(labels: Sequence[Label]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return a table of the labels with their latents, most of them by words first, and one of the ways they were
    found."""
    members: dict[str, list[tuple[int, Label]]] = {}
    for latent, label in enumerate(labels):
        if label.label is not None:
            members.setdefault(label.label, []).append((latent, label))
    for of in members.values():
        of.sort(key=lambda one: one[1].how == "nearest")
    often = sorted(members, key=lambda label: (-_by_words(members[label]), -len(members[label])))
    title = f"Latents of each label, {SHOWN} of {len(often)} labels" if len(often) > SHOWN else "Latents of each label"
    return {title: [_member_row(k, members[k]) for k in often[:SHOWN]], "How labels were found": _label_rows(labels)}


def _member_row(label: str, members: Sequence[tuple[int, Label]]) -> dict[str, Any]:
    some = ", ".join(f"{latent} ({found.name})" for latent, found in members[:FEW])
    return {
        "label": label,
        "by words": _by_words(members),
        "nearest only": len(members) - _by_words(members),
        "latents and their names": some + ", ..." * (len(members) > FEW),
    }


def _by_words(members: Sequence[tuple[int, Label]]) -> int:
    """Return how many names share words with their label."""
    return sum(found.how != "nearest" for _, found in members)


def _label_rows(labels: Sequence[Label]) -> list[dict[str, Any]]:
    how = Counter(label.how for label in labels if label.name)
    sure = {k: [x.confidence for x in labels if x.name and x.how == k] for k in how}
    return [
        {"how": k, "latents": n, "mean confidence": float(np.mean(sure[k])), "examples": _examples(labels, k)}
        for k, n in how.most_common()
    ]


def _examples(labels: Sequence[Label], how: str) -> str:
    some = [x for x in labels if x.how == how and x.name][:3]
    return ", ".join(f"{x.name} → {x.label}" if x.label else x.name for x in some)


def _findings(found: Found) -> list[str]:
    says = [] if found.kinds is None else _of_kinds(found.kinds, found.scored)
    if found.languages is not None and found.languages.bound:
        says += _of_languages(found.languages, found.scored)
    if found.labels:
        of = [x for x in found.labels if x.name]
        says.append(f"{sum(x.label is None for x in of)} of {len(of)} names have no label in the vocabulary.")
        nearest = sum(x.how == "nearest" for x in of)
        if nearest:
            says.append(
                f"{nearest} names share no word with their label, which is the nearest entry by the model: in a short "
                "vocabulary it may fit badly."
            )
    return says


def _of_kinds(kinds: Kinds, scored: ScoredClasses) -> list[str]:
    alive = int(scored.alive.sum())
    named = int(((kinds.latents.word >= 0) & scored.alive).sum())
    says = [f"{alive - named} of {alive} living latents stand for no single word, so nothing here is about them."]
    known = [s for s in kinds.shares if s.latents >= FEW and not np.isnan(s.p)]
    few = [kind for kind in KINDS if kind not in {s.kind for s in known}]
    if few:
        says.append(f"Fewer than {FEW} latents stand for words of the kinds {', '.join(few)}: no statement about them.")
    beyond = [s for s in known if s.p <= 0.05 / max(len(known), 1)]
    if not known:
        says.append("No class of words was compared: too few latents stand for words.")
    elif not beyond:
        says.append("No kind of words has another modality class than shuffled kinds have (Bonferroni).")
    for s in beyond:
        more = "more" if s.share > (s.shuffled_low + s.shuffled_high) / 2 else "less"
        says.append(
            f"Latents of {s.kind}s are {more} often {s.modality} than with shuffled kinds: {s.share:.0%}, against "
            f"{s.shuffled_low:.0%} to {s.shuffled_high:.0%} (p {s.p:.3f})."
        )
    return says


def _of_languages(one: Languages, scored: ScoredClasses) -> list[str]:
    bound = [b for b in one.bound if b.bound]
    classes = Counter(str(scored.classes[b.latent]) for b in bound)
    parts = ", ".join(f"{classes[name]} {name}" for name in CLASSES)
    says = [
        f"{len(bound)} of {len(one.bound)} latents that fire on enough captions are bound to one language ({parts})."
    ]
    weak = [s.language for s in one.same if s.gain_low <= 0]
    if weak:
        says.append(
            f"Captions of one picture share no more latents than captions of two in: {', '.join(weak)}, "
            f"compared with the tagged language."
        )
    return says
