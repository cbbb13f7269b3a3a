"""Compute the agreement of raters with each other and with the metrics.

Between raters: Krippendorff's alpha ("Content Analysis", 2004; by the library `krippendorff`), 1 = full agreement, 0 =
chance, with a bootstrap interval over latents. Between raters and metrics: how often the class by each rule is the
modality that most raters chose, and the rank correlation of the mean answer with each metric.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from cliplens.errors import InputError, MismatchError
from cliplens.records import LatentTable
from cliplens_plugins.report.rate import FORMAT

Level = Literal["nominal", "ordinal"]
CODES: Mapping[str, tuple[Level, tuple[str, ...]]] = {
    "concept": ("ordinal", ("no", "partly", "yes")),
    "modality": ("nominal", ("image", "both", "text", "unsure")),
    "name": ("ordinal", ("wrong", "partly", "right")),
}
"""Level of measurement and answers in order, by question. "unsure" counts as no answer."""
CLASS_OF = {"image": "ImgD", "both": "CrossD", "text": "TextD"}
RULES = ("modality", "modality_paper", "modality_significant")
_MEASURES = {
    "concept": ("ms_image", "ms_text", "mms", "embsim_image", "embsim_text", "name_agreement"),
    "name": ("name_score", "name_image_score", "name_text_score", "name_agreement"),
    "modality": ("mds", "energy"),
}
_SIDE = {"image": 1.0, "both": 0.5, "text": 0.0}


@dataclass(frozen=True)
class Ratings:
    """The answers of one rater."""

    rater: str
    run: str
    answers: Mapping[int, Mapping[str, str]]
    """Answers by latent and question."""


def read_ratings(path: Path) -> Ratings:
    """Read a file of answers that the rating page saved.

    Raises:
        InputError: the file has another format, or contains an answer that the page does not offer.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        answers = {int(k): {str(q): str(a) for q, a in given.items()} for k, given in content["answers"].items()}
        wrong = {f"{q}={a}" for given in answers.values() for q, a in given.items() if a not in CODES[q][1]}
        if wrong:
            raise ValueError(f"answers {sorted(wrong)}")
        return Ratings(str(content["rater"]), str(content["run"]), answers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            expected=f"answers saved by the rating page ({FORMAT}) in {path}",
            found=_why(error),
            fix="open rate.html, answer, and press 'Save answers'",
        ) from error


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"a file that cannot be read ({error.strerror})"
    if isinstance(error, KeyError):
        return f"no field {error}, or a question that is not asked"
    return f"a file of another kind ({error})"


def agreement_between(ratings: Sequence[Ratings], draws: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """Return a row per question: Krippendorff's alpha with a bootstrap interval over latents.

    alpha is nan where fewer than two raters answered the same latent, or where all answers are equal.

    Raises:
        MismatchError: the ratings belong to different runs.
    """
    runs = {r.run for r in ratings}
    if len(runs) > 1:
        raise MismatchError(
            expected="ratings of one run",
            found=f"{len(runs)} runs: {', '.join(sorted(runs))}",
            fix="pass only files of one run",
        )
    rows = []
    for question, (level, _) in CODES.items():
        table = _table(ratings, question)
        low, high = _interval(table, level, draws, seed)
        rows.append(
            {
                "question": question,
                "raters": len(ratings),
                "latents": int(((~np.isnan(table)).sum(axis=0) > 1).sum()),
                "alpha": alpha(table, level),
                "low": low,
                "high": high,
                "level": level,
            }
        )
    return rows


def agreement_with_metrics(ratings: Sequence[Ratings], table: LatentTable) -> list[dict[str, Any]]:
    """Return the agreement of the latent table with the raters, one row per question and column.

    For columns of classes: the share of latents whose class is the modality that most raters chose; ties and "unsure"
    are left out. For columns of numbers: Spearman's rank correlation with the mean answer.
    """
    rows: list[dict[str, Any]] = []
    chosen = majority(ratings)
    for rule in RULES:
        if rule in table and chosen:
            hits = [table[rule][k] == CLASS_OF[answer] for k, answer in chosen.items()]
            share = float(np.mean(hits))
            rows.append({"question": "modality", "metric": rule, "latents": len(hits), "agreement": share})
    for question, columns in _MEASURES.items():
        mean = _mean_answer(ratings, question)
        for column in columns:
            if column not in table:
                continue
            both = [(value, float(table[column][k])) for k, value in mean.items() if not np.isnan(table[column][k])]
            rows.append(
                {"question": question, "metric": column, "latents": len(both), "correlation": _correlation(both)}
            )
    return rows


def majority(ratings: Sequence[Ratings]) -> dict[int, str]:
    """Return the modality that most raters chose for each latent; latents with a tie are left out."""
    chosen: dict[int, str] = {}
    for latent in sorted({k for r in ratings for k in r.answers}):
        given = Counter(r.answers.get(latent, {}).get("modality", "unsure") for r in ratings)
        del given["unsure"]
        first = given.most_common(2)
        if first and (len(first) == 1 or first[0][1] > first[1][1]):
            chosen[latent] = first[0][0]
    return chosen


def alpha(table: Float[np.ndarray, "rater latent"], level: Level) -> float:
    """Return Krippendorff's alpha of coded answers; nan marks a missing answer."""
    import krippendorff

    shared = table[:, (~np.isnan(table)).sum(axis=0) > 1]
    if len(np.unique(shared[~np.isnan(shared)])) < 2:
        return float("nan")
    return float(krippendorff.alpha(reliability_data=shared, level_of_measurement=level))


def _table(ratings: Sequence[Ratings], question: str) -> Float[np.ndarray, "rater latent"]:
    latents = sorted({k for r in ratings for k in r.answers})
    codes = {answer: n for n, answer in enumerate(CODES[question][1]) if answer != "unsure"}
    given = [[codes.get(r.answers.get(k, {}).get(question, ""), np.nan) for k in latents] for r in ratings]
    return np.array(given, dtype=np.float64).reshape(len(ratings), len(latents))


def _interval(table: Float[np.ndarray, "rater latent"], level: Level, draws: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    if not table.shape[1]:
        return float("nan"), float("nan")
    drawn = np.array([alpha(table[:, rng.integers(0, table.shape[1], table.shape[1])], level) for _ in range(draws)])
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return float("nan"), float("nan")
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def _mean_answer(ratings: Sequence[Ratings], question: str) -> dict[int, float]:
    """Return the mean of the answers as numbers for each latent; modality is coded 0 captions, 1/2 both, 1 pictures."""
    codes = _SIDE if question == "modality" else {a: float(n) for n, a in enumerate(CODES[question][1])}
    means: dict[int, float] = {}
    for latent in sorted({k for r in ratings for k in r.answers}):
        given = [codes[a] for r in ratings if (a := r.answers.get(latent, {}).get(question, "")) in codes]
        if given:
            means[latent] = float(np.mean(given))
    return means


def _correlation(both: Sequence[tuple[float, float]]) -> float:
    left, right = np.array(both, dtype=np.float64).reshape(-1, 2).T
    if len(left) < 3 or len(set(left)) < 2 or len(set(right)) < 2:
        return float("nan")
    return float(spearmanr(left, right).statistic)
