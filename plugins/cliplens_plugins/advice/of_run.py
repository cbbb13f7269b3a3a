"""Make the study of one run: lists of pairs to correct, a decision per concept, and a test of the scores."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from cliplens import api
from cliplens.arrays import nearest_rows
from cliplens.errors import CliplensError
from cliplens.hooked import HookedCLIP
from cliplens.pairs import tokenised
from cliplens.run import OpenedRun
from cliplens.sae import Dictionary
from cliplens.statistics import auroc, auroc_interval
from cliplens.studies import Study, classes_of_table, sample_codes, twin_of, with_interval
from cliplens_plugins.advice.concepts import Concept, concepts_of
from cliplens_plugins.advice.coverage import Coverage, coverage
from cliplens_plugins.advice.known_answer import FACTORS, spoil
from cliplens_plugins.advice.matching import sdm_value
from cliplens_plugins.advice.scores import PairScores, clip_score, misfit, sae_v, score_pairs, well_matched

ACTS = 2048
DUPLICATE = 0.999
"""Least cosine of two near-duplicate images."""
LONG = 50
"""Largest number of pairs in a list."""


@dataclass(frozen=True, kw_only=True)
class AdviceOptions:
    """The options of the study."""

    pairs: int = 1024
    target: str | None = None
    """Source of the target set: pairs that have the concepts in the wanted shares."""
    concepts: int = 24
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Seen:
    """Pairs with their embeddings, codes and scores."""

    ids: tuple[str, ...]
    captions: tuple[str, ...]
    images: Float[Tensor, "pair channel height width"]
    tokens: Tensor
    image: Float[Tensor, "pair d"]
    text: Float[Tensor, "pair d"]
    codes: tuple[Float[np.ndarray, "pair d_sae"], Float[np.ndarray, "pair d_sae"]]
    scores: PairScores
    """By latents; mention rates are counted in the half of the pairs with the higher CLIP score."""
    clip: Float[np.ndarray, " pair"]
    """CLIP score."""

    @property
    def rankings(self) -> dict[str, Float[np.ndarray, " pair"]]:
        """The scores by which pairs can be ranked, worst pair highest."""
        return {
            "latents and CLIP score": misfit(self.scores, self.clip),
            "misses": self.scores.misses,
            "contradicts": self.scores.contradicts,
            "misses + contradicts": self.scores.misses + self.scores.contradicts,
            "low CLIP score": -self.clip,
            "low SAE-V score": -sae_v(*self.codes, self.image, self.text),
            "low SDM value": -sdm_value(self.codes[0], self.codes[0], quality=self.clip),
        }


@dataclass(frozen=True)
class Listed:
    """One entry of a list on the page."""

    list: str
    place: int
    id: str
    caption: str
    score: float
    evidence: str


def study_of_run(run: OpenedRun, asked: AdviceOptions) -> tuple[Study, list[Listed], Seen]:
    """Return the record of the study, the listed pairs, and the pairs that were checked.

    Raises:
        InputError: the run has one modality, or no scores.
    """
    scored = classes_of_table(run.table)
    sample = run.sample(asked.pairs)
    assert sample.images is not None
    assert sample.captions is not None
    seen = see(run.clip, run.dictionary, sample.ids, sample.captions, sample.images)
    covered = None if asked.target is None else _coverage(run, seen, asked)
    against = seen.scores.missed.sum(0) + seen.scores.contradicted.sum(0)
    if covered is not None:
        against = against + len(seen.ids) * covered.under_covered
    chosen = [int(k) for k in np.argsort(-against, kind="stable")[: asked.concepts] if against[k] > 0]
    concepts = concepts_of(run.clip, run.dictionary, seen.images, seen.tokens, seen.codes, seen.scores, chosen,
                           covered=covered) if chosen else []  # fmt: skip
    names = _names(run)
    listed = lists(seen, names)
    answers, notes = _known_answers(run, seen, asked)
    tables = {
        "Decision per concept": [_concept_row(c, names, scored.classes) for c in concepts],
        "Known answer: AUROC of finding spoiled captions": answers,
        "Rankings of the worst tenth beside each other": _rankings(seen),
        "Pairs listed": [{"list": name, "pairs": n} for name, n in Counter(x.list for x in listed).items()],
    }
    study = Study(
        name="advice",
        title="Advice on data",
        findings=_findings(seen, concepts, answers),
        tables=tables,
        notes=(*notes, *NOTES),
        settings=vars(asked),
        latents={"Concepts": chosen},
        data={"pairs": [vars(x) for x in listed]},
    )
    return study, listed, seen


NOTES = (
    "A caption counts as missing a concept only if captions usually mention that concept (mention rate of .5 or more).",
    "`led` is the loss without the latent in the image tower, minus the loss without it in the text tower. Image-led "
    "concepts need images, caption-led ones better captions; if the interval contains 0, there is no advice.",
    "`excess loss` is the most that correcting the pairs could gain. Whether training again on corrected pairs helps "
    "was not tested on this run; docs/advice.md says when it did, and when not, in the embedded world.",
)


def see(
    clip: HookedCLIP,
    dictionary: Dictionary,
    ids: Sequence[str],
    captions: Sequence[str],
    images: Float[Tensor, "pair channel height width"],
) -> Seen:
    """Compute embeddings, codes and scores of pairs."""
    tokenizer: Any = clip.tokenizer
    tokens = tokenised(list(captions), tokenizer).tokens
    images = images.to(clip.dtype)
    with torch.no_grad():
        image = torch.cat([clip.encode_image(x.to(clip.device), normalize=True).flatten(1) for x in images.split(64)])
        text = torch.cat([clip.encode_text(x.to(clip.device), normalize=True).flatten(1) for x in tokens.split(256)])
    codes = tuple(
        sample_codes(clip, dictionary, m, x).float().cpu().numpy()  # type: ignore[arg-type]
        for m, x in (("image", images), ("text", tokens))
    )
    clip_scores = clip_score(image, text)
    scores = score_pairs(*codes, trusted=well_matched(clip_scores))
    return Seen(tuple(ids), tuple(captions), images, tokens, image, text, codes, scores, clip_scores)  # type: ignore[arg-type]


def lists(seen: Seen, names: Sequence[str], long: int = LONG) -> list[Listed]:
    """Return the ranked lists: captions that miss or contradict the image, wrong matches, and near-duplicates."""
    found = _worst("caption does not fit the image", seen, misfit(seen.scores, seen.clip), seen.scores, names, long)
    found += _worst("caption misses what the image shows", seen, seen.scores.misses, seen.scores, names, long, 0)
    found += _worst("caption says what the image lacks", seen, seen.scores.contradicts, seen.scores, names, long, 1)
    similar = (seen.image.double() @ seen.text.double().T).cpu().numpy()
    own = similar.diagonal()
    ahead = np.minimum((similar > own[:, None]).sum(1), (similar > own[None]).sum(0))
    order = [int(i) for i in np.argsort(-ahead, kind="stable")[:long] if ahead[i] >= max(5, len(own) // 20)]
    found += [
        Listed("perhaps mislabelled", n, seen.ids[i], seen.captions[i], float(ahead[i]),
               f"at least {int(ahead[i])} other captions fit the image better, and as many images the caption")
        for n, i in enumerate(order, 1)
    ]  # fmt: skip
    near, cosine = nearest_rows(seen.image, 1)
    twins = [i for i in range(len(near)) if near.shape[1] and cosine[i, 0] >= DUPLICATE and i < near[i, 0]][:long]
    return found + [
        Listed("near-duplicates", n, seen.ids[i], seen.captions[i], float(cosine[i, 0]),
               f"of {seen.ids[int(near[i, 0])]}: {seen.captions[int(near[i, 0])]}")
        for n, i in enumerate(twins, 1)
    ]  # fmt: skip


def _worst(
    name: str,
    seen: Seen,
    score: np.ndarray,
    scores: PairScores,
    names: Sequence[str],
    long: int,
    side: int | None = None,
) -> list[Listed]:
    order = [int(i) for i in np.argsort(-score, kind="stable")[:long] if score[i] > 0]

    def evidence(i: int) -> str:
        said = [", ".join(f"{names[k]} (#{k})" for k in latents[:4]) for latents in scores.of(i)]
        if side is not None:
            return said[side]
        told = [f"{what} {text}" for what, text in zip(("misses", "image lacks"), said, strict=True) if text]
        return "; ".join([*told, f"CLIP score {seen.clip[i]:.2f}"])

    return [
        Listed(name, n, seen.ids[i], seen.captions[i], float(score[i]), evidence(i)) for n, i in enumerate(order, 1)
    ]


def known_answer(
    clip: HookedCLIP,
    dictionary: Dictionary,
    ids: Sequence[str],
    captions: Sequence[str],
    images: Float[Tensor, "pair channel height width"],
    *,
    factors: Sequence[str] = FACTORS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return how well each score finds spoiled captions of the world: AUROC with interval."""
    rows = []
    for factor in factors:
        for kind in ("delete", "replace"):
            spoiled, bad = spoil(captions, factor, kind, seed=seed)
            seen = see(clip, dictionary, ids, spoiled, images)
            row: dict[str, Any] = {"spoiled": f"{kind} {factor}", "captions": int(bad.sum())}
            for name, score in seen.rankings.items():
                value = auroc(score[bad], score[~bad])
                row[name] = with_interval(value, *auroc_interval(value, int(bad.sum()), int((~bad).sum())))
            rows.append(row)
    return rows


def _known_answers(run: OpenedRun, seen: Seen, asked: AdviceOptions) -> tuple[list[dict[str, Any]], list[str]]:
    if not run.asked.pairs.startswith(api.WORLD_PREFIX):
        return [], ["The scores were not tested: only captions of the world can be spoiled by rule."]
    given = (seen.ids, seen.captions, seen.images)
    rows = [{"dictionary": "of the run", **r} for r in known_answer(run.clip, run.dictionary, *given, seed=asked.seed)]
    try:
        twin, _ = twin_of(run.dictionary, run.scored_acts(ACTS), seed=asked.seed)
    except CliplensError as error:
        return rows, [f"The control with an untrained dictionary is left out. {error}"]
    return rows + [
        {"dictionary": "never trained", **r} for r in known_answer(run.clip, twin, *given, seed=asked.seed)
    ], []


def _findings(seen: Seen, concepts: Sequence[Concept], answers: Sequence[dict[str, Any]]) -> list[str]:
    says = [
        f"{seen.scores.usable:.0%} of the latents that fire often enough have a mention rate of at least .5. "
        "Only these can show that a caption is wrong. Concepts with separate latents for images and captions cannot."
    ]
    own = [r for r in answers if r["dictionary"] == "of the run"]
    if own:
        for name in ("misses + contradicts", "latents and CLIP score"):
            worse = [r["spoiled"] for r in own if _number(r[name]) <= _number(r["low CLIP score"])]
            says.append(
                f"In {len(worse)} of {len(own)} tests with spoiled captions, a low CLIP score alone finds them at "
                f"least as well as {name} ({', '.join(worse) or 'none'})."
            )
    counts = {d: sum(c.decision == d for c in concepts) for d in ("no advice", "rewrite captions", "collect images")}
    says.append("Concepts: " + ", ".join(f"{n} {d}" for d, n in counts.items()) + ".")
    return says


def _number(cell: str) -> float:
    return float(cell.partition(" ")[0])


def _concept_row(concept: Concept, names: Sequence[str], classes: np.ndarray) -> dict[str, Any]:
    return {
        "concept": names[concept.latent],
        "latent": concept.latent,
        "class": str(classes[concept.latent]),
        "decision": concept.decision,
        "captions miss it": with_interval(*concept.missed),
        "images lack it": with_interval(*concept.contradicted),
        "led (nats)": with_interval(*concept.led),
        "covered": None if concept.covered is None else with_interval(*concept.covered),
        "excess loss (nats)": concept.excess,
    }


def _rankings(seen: Seen) -> list[dict[str, Any]]:
    ranked = seen.rankings
    tenth = max(1, len(seen.ids) // 10)
    worst = {name: set(np.argsort(-score, kind="stable")[:tenth].tolist()) for name, score in ranked.items()}
    rows = []
    for name, score in ranked.items():
        row: dict[str, Any] = {"ranking": name}
        for other, values in ranked.items():
            varied = bool(np.ptp(score) and np.ptp(values))
            row[f"Spearman with {other}"] = float(spearmanr(score, values).statistic) if varied else None
        row["worst tenth shared with low CLIP score"] = len(worst[name] & worst["low CLIP score"]) / tenth
        rows.append(row)
    return rows


def _coverage(run: OpenedRun, seen: Seen, asked: AdviceOptions) -> Coverage:
    from cliplens.pairs import Decoder

    assert asked.target is not None
    pairs = api.read_pairs(asked.target)
    rng = np.random.default_rng(asked.seed)
    places = np.sort(rng.permutation(len(pairs))[: asked.pairs])
    images = Decoder(pairs, run.clip.preprocess, False)[places].images
    assert images is not None
    codes = sample_codes(run.clip, run.dictionary, "image", images.to(run.clip.dtype)).cpu().numpy()
    return coverage((seen.codes[0] > 0).sum(0), len(seen.ids), (codes > 0).sum(0), len(codes))


def _names(run: OpenedRun) -> list[str]:
    table = run.table
    if "name" not in table:
        return [f"latent {k}" for k in range(len(table))]
    return [str(name) if name and str(name) != "unnamed" else f"latent {k}" for k, name in enumerate(table["name"])]
