"""At which depth do the modalities meet? One dictionary over both towers at each depth of the embedded model.

    python benchmarks/layer_profile.py [--model world] [--seeds 1] [--steps 400]

Both towers of the embedded model have the same width, so one dictionary can be trained on the same block of both (class
token and end-of-text token). The table gives the shares of the classes, the recovery of the known truth by the scores,
and the modality gap, before and after subtracting the contributions of single-modality latents.
"""

import numpy as np

from _bench import bench, mean
from cliplens.records import PairedActs
from cliplens.tally import tally
from cliplens_plugins.modality import GroundTruthMetric, ModalityMetric, modality_gap, without_latents
from modality_ground_truth import SCORED, TRAIN, embeddings

HOOKS = (*(f"blocks.{layer}.hook_resid_post" for layer in range(3)), "hook_embedding")
COLUMNS = ("ImgD", "TextD", "CrossD", "alive", "labelled", "accuracy", "AUROC", "co-firing AUROC", "gap", "gap without")


def profile(model: str, hook: str, seed: int, steps: int) -> list[float]:
    """Return the figures of `COLUMNS` at one hook."""
    from cliplens.sae import dictionary_config, train
    from cliplens.store import Provider
    from cliplens.world import ground_truth

    acts = embeddings(model, TRAIN + SCORED, hook)
    fitted, shown = (PairedActs(acts.ids[p], acts.image[p], acts.text[p]) for p in (slice(TRAIN), slice(TRAIN, None)))
    config = dictionary_config("batchtopk", acts.image.shape[1], 256, k=8)
    provider = Provider.from_acts(fitted, batch_size=1024, seed=seed)
    dictionary = train(config, provider, samples=1024 * steps, lr=1e-3, seed=seed)
    truth = ground_truth(len(acts.ids))
    starts = range(0, SCORED, 1024)
    parts = (PairedActs(shown.ids[a : a + 1024], shown.image[a : a + 1024], shown.text[a : a + 1024]) for a in starts)
    batches = (dictionary.batch(part, truth=truth) for part in parts)
    found = tally(batches, [ModalityMetric(0), GroundTruthMetric()], decoder=dictionary.decoder)
    codes, single = dictionary.encode(shown), np.isin(found.table["modality"], ["ImgD", "TextD"])
    sides = [(shown.image, codes.image.dense()), (shown.text, codes.text.dense())]
    bare = [without_latents(x, c, dictionary.decoder, single) for x, c in sides]
    known, alive = found.figures["ground_truth"], found.figures["alive"]
    shares = [found.figures[name] / max(1, alive) for name in ("ImgD", "TextD", "CrossD")]
    recovery = known["recovery"]
    figures = [
        known["labelled"],
        recovery["pairs"]["accuracy_fixed"],
        recovery["pairs"]["auroc"],
        recovery["cofiring"]["auroc"],
    ]
    gaps = [modality_gap(*(s[:1024] for s in pair))["centroid"] for pair in ((shown.image, shown.text), tuple(bare))]
    return [*shares, alive, *figures, *gaps]


def main() -> None:
    with bench(__file__, __doc__, model="world", seeds=1, steps=400) as b:
        b.table(f"{b.args.model}, {b.args.seeds} seed(s)", {"hook": "", **dict.fromkeys(COLUMNS, ".3f")})
        for hook in HOOKS:
            runs = [profile(b.args.model, hook, seed, b.args.steps) for seed in range(b.args.seeds)]
            b.row(hook, *(mean(list(column)) for column in zip(*runs, strict=True)))


if __name__ == "__main__":
    main()
