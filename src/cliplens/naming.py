"""From what a namer says to columns of the latent table, and the default vocabulary.

A name from images and a name from captions are made apart, from the same latent's top samples in each modality; how far
they agree is a column of its own, because a latent whose two names differ is not one concept.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cliplens import keys
from cliplens.contracts import Judge, Namer, Scorer
from cliplens.errors import PluginError
from cliplens.records import Column, Evidence, Exemplars, Findings, Name, Pair, PairedActs, PairedCodes, SparseCodes
from cliplens.sites import Modality

UNNAMED = "unnamed"
"""What stands in the table where a latent has no evidence for any name."""
IMAGE_DOMINATED = 0.8
"""Share of a latent's activation on images beyond which its name is the one from images."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@cache
def function_words() -> frozenset[str]:
    """English words that name nothing one could see (articles, pronouns, auxiliaries); an asset of the package."""
    lines = (files("cliplens") / "assets" / "function_words.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


def words(caption: str) -> list[str]:
    """The words of a caption, lower case, in order: letters of any script, with inner apostrophes and hyphens."""
    return _WORD.findall(caption.lower())


def words_of(captions: Iterable[str], *, most: int = 10_000, at_least: int = 2) -> tuple[str, ...]:
    """The default vocabulary: words of the captions by how many captions hold them, function words dropped.

    Args:
        captions: the captions of the pairs themselves.
        most: how many words at most.
        at_least: in how many captions a word must stand. Where no word is that frequent, all are taken.
    """
    counts = Counter(word for caption in captions for word in set(words(caption)))
    content = [(w, n) for w, n in counts.items() if w not in function_words() and len(w) > 1]
    frequent = [(w, n) for w, n in content if n >= at_least] or content
    return tuple(w for w, _ in sorted(frequent, key=lambda item: (-item[1], item[0]))[:most])


Embed = Callable[[Sequence[str]], Float[Tensor, "text d_embed"]]


def name_latents(
    evidence: Evidence,
    namer: Namer,
    *,
    scorers: Sequence[Scorer] = (),
    embed: Embed | None = None,
    judges: Sequence[Judge] = (),
) -> Findings:
    """Name every latent from one half of the evidence, and test the names on the other.

    Args:
        evidence: halved by `split_evidence`; without scorers the namer gets all of it.
        namer: makes one name from images and one from captions.
        scorers: add their columns and tables; `name_score` is then the held-out one where they give it.
        embed: the model's own embedding of any text, for scorers.
        judges: independent encoders, for scorers.

    Raises:
        PluginError: the namer gave another number of names than there are latents.
    """
    naming, testing = split_evidence(evidence) if scorers else (evidence, evidence)
    given = {"images": namer.from_images(naming), "captions": namer.from_captions(naming)}
    for source, names in given.items():
        if len(names) != evidence.d_sae:
            raise PluginError(
                expected=f"one name per latent ({evidence.d_sae}) from the namer {namer.name!r}",
                found=f"{len(names)} names from {source}",
                fix="give Name(None, nan) for a latent without evidence",
            )
    share = image_share(naming)
    found = name_columns(given["images"], given["captions"], alive=evidence.alive, by=namer.name, image_share=share)
    for scorer in scorers:
        found = _joined(found, scorer.score(given["images"], given["captions"], testing, embed, judges))
    return _with_tested_score(found, chosen_modality(given["images"], given["captions"], share))


def split_evidence(evidence: Evidence, seed: int = 7) -> tuple[Evidence, Evidence]:
    """Two halves that share no pair, chosen by pair id alone: one to name from, one to test names on."""
    return _half(evidence, seed, first=True), _half(evidence, seed, first=False)


def name_columns(
    from_images: Sequence[Name],
    from_captions: Sequence[Name],
    *,
    alive: np.ndarray | None = None,
    by: str = "",
    image_share: Float[np.ndarray, " d_sae"] | None = None,
) -> Findings:
    """The columns name_image, name_text, name, name_score, name_agreement and name_evidence from two lists of names.

    The final name is chosen by `chosen_modality`. A latent that was given no name, or never fires, is called "unnamed",
    with a score of nan.
    """
    living = np.ones(len(from_images), dtype=bool) if alive is None else np.asarray(alive, dtype=bool)
    nothing = Name(None, float("nan"))
    image = [n if a and n.text else nothing for n, a in zip(from_images, living, strict=True)]
    text = [n if a and n.text else nothing for n, a in zip(from_captions, living, strict=True)]
    of = {"image": image, "text": text}
    best = [of[m][k] if m else nothing for k, m in enumerate(chosen_modality(image, text, image_share))]
    agreement = np.array([name_agreement(i.text, t.text) for i, t in zip(image, text, strict=True)])
    columns = {
        "name": _strings(n.text for n in best),
        "name_score": np.array([n.score if n.text else np.nan for n in best], dtype=np.float64),
        "name_agreement": agreement,
        "name_image": _strings(n.text for n in image),
        "name_image_score": np.array([n.score for n in image], dtype=np.float64),
        "name_text": _strings(n.text for n in text),
        "name_text_score": np.array([n.score for n in text], dtype=np.float64),
        "name_evidence": np.array([n.evidence for n in best], dtype=object),
    }
    return Findings(columns=columns, schema=_schema(by), figures=_figures(best, agreement, living))


def chosen_modality(
    from_images: Sequence[Name],
    from_captions: Sequence[Name],
    image_share: Float[np.ndarray, " d_sae"] | None = None,
) -> list[Modality | None]:
    """Whose name is the final one; None where there is none.

    Words that captions share are a better witness than nearness in an embedding, so the name from captions is taken
    wherever there is one, unless more than `IMAGE_DOMINATED` of the latent's activation lies on images.
    """
    shares = np.full(len(from_images), 0.5) if image_share is None else image_share
    chosen: list[Modality | None] = []
    for image, text, share in zip(from_images, from_captions, shares, strict=True):
        prefers_image = text.text is None or (image.text is not None and share > IMAGE_DOMINATED)
        chosen.append(None if image.text is None and text.text is None else "image" if prefers_image else "text")
    return chosen


def image_share(evidence: Evidence) -> Float[np.ndarray, " d_sae"] | None:
    """Each latent's activation on the background's images as a share of that on images and captions; None if unknown.

    0.5 where the latent fires on neither.
    """
    codes = evidence.background_codes
    if codes is None or codes.image is None or codes.text is None:
        return None
    image, text = (
        np.bincount(side.latents.cpu().numpy(), side.values.detach().cpu().double().numpy(), minlength=evidence.d_sae)
        for side in (codes.image, codes.text)
    )
    total = image + text
    return np.where(total > 0, image / np.where(total > 0, total, 1), 0.5)


def in_context(
    vocabulary: Sequence[str],
    captions: Iterable[tuple[Sequence[str], Float[Tensor, "_ d_embed"]]],
    alone: Float[Tensor, "word d_embed"],
    *,
    enough: int = 8,
) -> Float[Tensor, "word d_embed"]:
    """What each word does to the embedding of captions that hold it: a better direction than the bare word's.

    The mean embedding of captions that hold the word, about the mean of all captions, blended with the bare word's own
    embedding, about the mean of all bare words: n captions count n / (n + enough). Unit rows before blending. Ours; kin
    of prompt ensembling, with the captions at hand as prompts.

    Args:
        vocabulary: words or phrases.
        captions: batches of captions with their embeddings.
        alone: embeddings of the vocabulary by itself.
        enough: captions at which context and bare word count the same.
    """
    place = {" ".join(words(word)): n for n, word in enumerate(vocabulary)}
    longest = max((len(words(word)) for word in vocabulary), default=1)
    sums, counts = torch.zeros_like(alone, dtype=torch.float64), torch.zeros(len(vocabulary), dtype=torch.float64)
    total, seen = torch.zeros(alone.shape[1], dtype=torch.float64), 0
    for said, acts in captions:
        rows = torch.nn.functional.normalize(acts.detach().cpu().double(), dim=-1)
        total, seen = total + rows.sum(0), seen + len(rows)
        held = [(row, place[gram]) for row, text in enumerate(said) for gram in _grams(text, longest) if gram in place]
        if held:
            at, of = torch.tensor(held).T
            sums.index_add_(0, of, rows[at])
            counts.index_add_(0, of, torch.ones(len(of), dtype=torch.float64))
    bare = torch.nn.functional.normalize(alone.detach().cpu().double(), dim=-1)
    bare = torch.nn.functional.normalize(bare - bare.mean(0), dim=-1)
    middle = total / max(seen, 1)
    context = torch.nn.functional.normalize(sums / counts.clamp(min=1)[:, None] - middle, dim=-1)
    weight = (counts / (counts + enough))[:, None]
    return (weight * context + (1 - weight) * bare).to(alone.dtype)


def _grams(caption: str, longest: int) -> set[str]:
    said = words(caption)
    return {" ".join(said[at : at + n]) for n in range(1, longest + 1) for at in range(len(said) - n + 1)}


def _with_tested_score(found: Findings, chosen: Sequence[Modality | None]) -> Findings:
    """The final name's tested score and limits, where a scorer gave those of each name."""
    columns, schema = dict(found.columns), {c.name: c for c in found.schema}
    for suffix, about in (("score", "Tested score"), ("score_low", "Lower limit"), ("score_high", "Upper limit")):
        of = {"image": columns.get(f"name_image_{suffix}"), "text": columns.get(f"name_text_{suffix}")}
        if any(values is None for values in of.values()) and suffix != "score":
            continue
        values = [of[m][k] if m and of[m] is not None else np.nan for k, m in enumerate(chosen)]  # type: ignore[index]
        columns[f"name_{suffix}"] = np.array(values, dtype=np.float64)
        says = f"{about} of the final name: that of name_image_{suffix} or name_text_{suffix}."
        schema[f"name_{suffix}"] = Column(
            f"name_{suffix}", says, range="[0, 1], 0.5 = chance", nan="unnamed or untested"
        )
    tested = columns["name_score"][~np.isnan(columns["name_score"])]
    figures = {**found.figures, "name_score_median": float(np.median(tested)) if len(tested) else None}
    return replace(found, columns=columns, schema=tuple(schema.values()), figures=figures)


def name_agreement(image: str | None, text: str | None) -> float:
    """Shared words of two names, as a fraction of the shorter one: 1 = it is contained in the other, 0 = none shared.

    nan when either is missing. Ours.
    """
    if not image or not text:
        return float("nan")
    left, right = set(words(image)) or {image}, set(words(text)) or {text}
    return len(left & right) / min(len(left), len(right))


def auroc(positive: Sequence[float] | np.ndarray, negative: Sequence[float] | np.ndarray) -> float:
    """How often a positive sample scores above a negative one, ties counting one half; in [0, 1], 0.5 = chance.

    nan when either side is empty or holds a nan.
    """
    up, down = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if not len(up) or not len(down) or np.isnan(up).any() or np.isnan(down).any():
        return float("nan")
    down = np.sort(down)
    below, upto = np.searchsorted(down, up, side="left"), np.searchsorted(down, up, side="right")
    return float((below + upto).mean() / (2 * len(down)))


def _half(evidence: Evidence, seed: int, *, first: bool) -> Evidence:
    def keep(pairs: Sequence[Pair]) -> Bool[np.ndarray, " pair"]:
        return keys.held_out(keys.pair_keys([p.id for p in pairs]), 0.5, seed) == first

    parts: dict[str, Any] = {}
    for side, acts in (("images", evidence.image_acts), ("texts", evidence.text_acts)):
        exemplars: Exemplars | None = getattr(evidence, side)
        if exemplars is not None:
            kept = keep(exemplars.pairs)
            parts[side] = _exemplars_where(exemplars, kept)
            parts[f"{side[:-1]}_acts"] = None if acts is None else acts[torch.from_numpy(np.flatnonzero(kept))]
    kept = keep(evidence.background)
    parts["background"] = tuple(p for p, k in zip(evidence.background, kept, strict=True) if k)
    rows = torch.from_numpy(np.flatnonzero(kept))
    if evidence.background_acts is not None:
        ids = tuple(p.id for p in parts["background"])
        both = (evidence.background_acts.image, evidence.background_acts.text)
        parts["background_acts"] = PairedActs(ids, *(None if acts is None else acts[rows] for acts in both))
    if evidence.background_codes is not None:
        parts["background_codes"] = _codes_where(evidence.background_codes, rows)
    return replace(evidence, **parts)


def _exemplars_where(exemplars: Exemplars, kept: Bool[np.ndarray, " pair"]) -> Exemplars:
    """The exemplars among the kept pairs, ranks closed up."""
    place = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # -1, no sample, stays -1
    at = place[exemplars.at]
    order = np.argsort(at < 0, axis=1, kind="stable")
    at = np.take_along_axis(at, order, axis=1)
    values = np.where(at >= 0, np.take_along_axis(exemplars.values, order, axis=1), 0.0)
    pairs = tuple(p for p, k in zip(exemplars.pairs, kept, strict=True) if k)
    return Exemplars(exemplars.modality, pairs, at, values)


def _codes_where(codes: PairedCodes, rows: Int64[Tensor, " kept"]) -> PairedCodes:
    def of(side: SparseCodes | None) -> SparseCodes | None:
        return None if side is None else SparseCodes.from_dense(side.dense()[rows])

    return PairedCodes(tuple(codes.ids[int(r)] for r in rows), of(codes.image), of(codes.text))


def _joined(found: Findings, more: Findings) -> Findings:
    schema = {c.name: c for c in (*found.schema, *more.schema)}
    return Findings(
        columns={**found.columns, **more.columns},
        schema=tuple(schema.values()),
        figures={**found.figures, **more.figures},
        tables={**found.tables, **more.tables},
        notes=(*found.notes, *more.notes),
    )


def _strings(texts: Iterable[str | None]) -> np.ndarray:
    return np.array([t or UNNAMED for t in texts], dtype=object)


def _figures(best: Sequence[Name], agreement: Float[np.ndarray, " d_sae"], living: np.ndarray) -> dict[str, object]:
    named = sum(n.text is not None for n in best)
    scores = [n.score for n in best if n.text is not None and not np.isnan(n.score)]
    both = agreement[~np.isnan(agreement)]
    return {
        "named": named,
        "unnamed": int(living.sum()) - named,
        "name_score_median": float(np.median(scores)) if scores else None,
        "name_agreement_mean": float(both.mean()) if len(both) else None,
    }


def _schema(by: str) -> tuple[Column, ...]:
    source = f"namer {by!r}" if by else "ours"
    scored = "AUROC of telling top samples from others by the name alone, as the namer sees it"
    return (
        Column(
            "name",
            "the final name: from captions where there is one, unless images dominate the latent",
            nan="'unnamed': no evidence",
            source=source,
        ),
        Column("name_score", scored, range="[0, 1], 0.5 = chance", nan="unnamed", source=source),
        Column(
            "name_agreement",
            "shared words of both names, as a fraction of the shorter name's",
            range="[0, 1]",
            nan="a name is missing",
        ),
        Column("name_image", "name made from the top images alone", nan="'unnamed'", source=source),
        Column("name_image_score", scored, range="[0, 1], 0.5 = chance", nan="unnamed", source=source),
        Column("name_text", "name made from the top captions alone", nan="'unnamed'", source=source),
        Column("name_text_score", scored, range="[0, 1], 0.5 = chance", nan="unnamed", source=source),
        Column("name_evidence", "what speaks for the name, in the namer's words", source=source),
    )
