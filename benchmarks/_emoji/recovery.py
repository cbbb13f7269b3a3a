"""Do modality scores find that the artist is in the drawing, the language in the name, and the rest in both?"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from cliplens.keys import first_id, hashed_uniform, held_out, pair_keys, text_keys
from cliplens.pairs.emoji import emoji_truth, read_emoji
from cliplens.records import Batch, GroundTruth, PairedActs
from cliplens.sae import dictionary_config, train
from cliplens.store import Provider
from cliplens.tally import tally
from cliplens_hooks.models.emoji import TRAINED_LANGUAGES
from cliplens_hooks.training.emoji_figures import Judged
from cliplens_plugins.fidelity import FidelityMetric
from cliplens_plugins.modality import GroundTruthMetric

EMOJI, SHARE = 800, 0.25
"""Number of emoji per artist, and share of drawings x languages, that dictionaries are trained and scored on."""
STEPS, ROWS = 400, 1024


TWO = ("en", "ja")
"""The languages of the smaller question, in which nothing is left out of the sample."""


@cache
def asked(languages: tuple[str, ...], emoji: int, share: float) -> tuple[list[str], list[str], GroundTruth]:
    """Return ids and captions of a sample of the pairs of three artists and some languages, and the truth."""
    source = f"emoji:all?language={','.join(languages)}&limit={emoji}"
    pairs = read_emoji(source)
    chosen = np.flatnonzero(hashed_uniform(text_keys(pairs.ids), 7) < share)
    captions = pairs.captions
    return [str(pairs.ids[n]) for n in chosen], [str(captions[n]) for n in chosen], emoji_truth(source)


def recovered_of_two(model: Judged) -> dict[str, tuple[float | None, float | None]]:
    """Return what `recovered` does, for English and Japanese and the emoji that `limit=500` takes."""
    return recovered(model, asked(TWO, 500, 1.0))


def recovered(
    model: Judged, sample: tuple[list[str], list[str], GroundTruth] | None = None, *, seed: int = 0
) -> dict[str, tuple[float | None, float | None]]:
    """Train one dictionary on two thirds of the drawings; label and score its latents on the others."""
    ids, captions, truth = sample or asked(TRAINED_LANGUAGES, EMOJI, SHARE)
    place = {drawing.id: n for n, drawing in enumerate(model.gallery.drawings)}
    image = model.image[[place[first_id(name)] for name in ids]]
    text = model.text(captions)
    scored = held_out(pair_keys(ids), 1 / 3, 8)
    fitted, tested = (part_of(ids, image, text, np.flatnonzero(of)) for of in (~scored, scored))
    provider = Provider.from_acts(fitted, batch_size=ROWS, seed=seed)
    config = dictionary_config("batchtopk", image.shape[1], 512, k=12)
    dictionary = train(config, provider, samples=ROWS * STEPS, batch_size=ROWS, lr=1e-3, seed=seed)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(tested.ids), ROWS):
            rows = np.arange(start, min(start + ROWS, len(tested.ids)))
            yield dictionary.batch(part_of(tested.ids, tested.image, tested.text, rows), truth=truth)

    found = tally(batches(), [GroundTruthMetric(), FidelityMetric()], decoder=dictionary.decoder)
    if found.failed:
        raise RuntimeError(found.failed)
    return _rows(found.figures)


def part_of(ids: Sequence[str], image: Any, text: Any, rows: np.ndarray) -> PairedActs:
    """Return some of the rows."""
    return PairedActs(tuple(ids[n] for n in rows), image[rows], text[rows])


def _rows(figures: dict[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    truth = figures["ground_truth"]
    rows: dict[str, tuple[float | None, float | None]] = {
        "explained variance": (None, figures["explained_variance"]),
        "living latents with a label": (None, float(truth["labelled"])),
        "living latents without": (None, float(truth["unlabelled"])),
    }
    for kind in ("image", "text", "shared"):
        covered, of = map(int, truth["coverage"][kind].split("/"))
        name = {"image": "artists", "text": "languages", "shared": "shared values"}[kind]
        rows[f"share of the {of} {name} with a latent"] = None, covered / of if of else None
    rows["labels of shared values that fire in one modality only"] = None, _known(truth["split_fraction"])
    scores = truth["recovery"]
    rows["class by MDS is the true one, fixed cuts"] = None, _known(scores["pairs"]["accuracy_fixed"])
    for score, about in (("pairs", "MDS"), ("energy", "energy ratio"), ("cofiring", "co-firing")):
        rows[f"AUROC of shared labels by {about}"] = 0.5, _known(scores[score]["auroc"])
    return rows


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
