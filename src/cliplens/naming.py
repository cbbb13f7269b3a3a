"""From what a namer says to columns of the latent table, and the default vocabulary.

A name from images and a name from captions are made apart, from the same latent's top samples in each modality; how far
they agree is a column of its own, because a latent whose two names differ is not one concept.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float

from cliplens.contracts import Namer
from cliplens.errors import PluginError
from cliplens.records import Column, Evidence, Findings, Name

UNNAMED = "unnamed"
"""What stands in the table where a latent has no evidence for any name."""
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


def name_latents(evidence: Evidence, namer: Namer) -> Findings:
    """Ask a namer for both names of every latent; columns as in `name_columns`.

    Raises:
        PluginError: the namer gave another number of names than there are latents.
    """
    given = {"images": namer.from_images(evidence), "captions": namer.from_captions(evidence)}
    for source, names in given.items():
        if len(names) != evidence.d_sae:
            raise PluginError(
                expected=f"one name per latent ({evidence.d_sae}) from the namer {namer.name!r}",
                found=f"{len(names)} names from {source}",
                do="give Name(None, nan) for a latent without evidence",
            )
    return name_columns(given["images"], given["captions"], alive=evidence.alive, by=namer.name)


def name_columns(
    from_images: Sequence[Name], from_captions: Sequence[Name], *, alive: np.ndarray | None = None, by: str = ""
) -> Findings:
    """The columns name_image, name_text, name, name_score, name_agreement and name_evidence from two lists of names.

    The final name is the better scored of the two (the one from images where they score alike). A latent that was
    given no name, or never fires, is called "unnamed", with a score of nan.
    """
    living = np.ones(len(from_images), dtype=bool) if alive is None else np.asarray(alive, dtype=bool)
    nothing = Name(None, float("nan"))
    image = [n if a and n.text else nothing for n, a in zip(from_images, living, strict=True)]
    text = [n if a and n.text else nothing for n, a in zip(from_captions, living, strict=True)]
    best = [max((i, t), key=_strength) for i, t in zip(image, text, strict=True)]
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


def name_agreement(image: str | None, text: str | None) -> float:
    """Shared words of two names, as a fraction of all their words (Jaccard): 1 = the same words, 0 = none in common.

    nan when either is missing. Ours.
    """
    if not image or not text:
        return float("nan")
    left, right = set(words(image)) or {image}, set(words(text)) or {text}
    return len(left & right) / len(left | right)


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


def _strength(name: Name) -> float:
    return -np.inf if name.text is None or np.isnan(name.score) else name.score


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
    scored = "held-out AUROC of telling top samples from others by the name alone; the namer says how"
    return (
        Column("name", "the better scored of the two names", nan="'unnamed': no evidence", source=source),
        Column("name_score", scored, range="[0, 1], 0.5 = chance", nan="unnamed", source=source),
        Column("name_agreement", "shared words of both names (Jaccard)", range="[0, 1]", nan="a name is missing"),
        Column("name_image", "name made from the top images alone", nan="'unnamed'", source=source),
        Column("name_image_score", scored, range="[0, 1], 0.5 = chance", nan="unnamed", source=source),
        Column("name_text", "name made from the top captions alone", nan="'unnamed'", source=source),
        Column("name_text_score", scored, range="[0, 1], 0.5 = chance", nan="unnamed", source=source),
        Column("name_evidence", "what speaks for the name, in the namer's words", source=source),
    )
