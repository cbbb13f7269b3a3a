"""Make the name columns of the latent table.

Each latent has a name from images and a name from captions, made separately. Their agreement has its own column: two
different names suggest that the latent is not one concept.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from cliplens.naming.vocabulary import words
from cliplens.records import Column, Findings, Name
from cliplens.sites import Modality

UNNAMED = "unnamed"
"""Name in the table of a latent without evidence for any name."""
IMAGE_DOMINATED = 0.8
"""Share of a latent's activation on images above which its final name is the one from images."""


def name_columns(
    from_images: Sequence[Name],
    from_captions: Sequence[Name],
    *,
    alive: Bool[np.ndarray, " d_sae"] | None = None,
    by: str = "",
    image_share: Float[np.ndarray, " d_sae"] | None = None,
) -> Findings:
    """Return columns of the latent table from the names of each latent.

    The columns are name, name_image, name_text, their scores, name_agreement and name_evidence. The final name is
    chosen by `chosen_modality`. A latent without a name, or one that never fires, is called "unnamed" and has the
    score nan.

    Args:
        from_images: one name per latent, from its top images.
        from_captions: one name per latent, from its top captions.
        alive: mask of the latents that fire; None means all.
        by: name of the namer, for the schema.
        image_share: each latent's share of activation on images; see `chosen_modality`.
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
    """Return the modality whose name is the final one, for each latent; None where neither has a name.

    The name from captions is chosen if there is one, because shared words are better evidence than nearness in an
    embedding. If more than `IMAGE_DOMINATED` of the latent's activation is on images, the name from images is chosen.

    Args:
        from_images: one name per latent, from its top images.
        from_captions: one name per latent, from its top captions.
        image_share: each latent's share of activation on images, in [0, 1]; 0.5 for all by default.
    """
    shares = np.full(len(from_images), 0.5) if image_share is None else image_share
    chosen: list[Modality | None] = []
    for image, text, share in zip(from_images, from_captions, shares, strict=True):
        prefers_image = text.text is None or (image.text is not None and share > IMAGE_DOMINATED)
        chosen.append(None if image.text is None and text.text is None else "image" if prefers_image else "text")
    return chosen


def name_agreement(image: str | None, text: str | None) -> float:
    """Return the number of words that two names share, as a fraction of the words of the shorter name. Ours.

    Range [0, 1]; 1 = the longer name contains all words of the shorter one; nan if a name is missing.

    >>> name_agreement("red circle", "Circle")
    1.0
    >>> name_agreement("red circle", "blue circle")
    0.5
    """
    if not image or not text:
        return float("nan")
    left, right = set(words(image)) or {image}, set(words(text)) or {text}
    return len(left & right) / min(len(left), len(right))


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
    scored = "AUROC of the name at separating the top samples it was made from from others, as computed by the namer"
    return (
        Column(
            "name",
            "final name: the one from captions if there is one, unless images dominate the latent",
            nan="'unnamed': no evidence",
            source=source,
        ),
        Column("name_score", scored, range="[0, 1], 0.5 = chance", nan="unnamed", source=source),
        Column(
            "name_agreement",
            "number of words that both names share, as a fraction of the words of the shorter name",
            range="[0, 1]",
            nan="a name is missing",
        ),
        Column("name_image", "name made only from the top images", nan="'unnamed'", source=source),
        Column("name_image_score", scored, range="[0, 1], 0.5 = chance", nan="unnamed", source=source),
        Column("name_text", "name made only from the top captions", nan="'unnamed'", source=source),
        Column("name_text_score", scored, range="[0, 1], 0.5 = chance", nan="unnamed", source=source),
        Column("name_evidence", "the namer's evidence for the name", source=source),
    )
