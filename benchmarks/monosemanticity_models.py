"""Are dictionary latents more monosemantic than neurons, and self-supervised CLIP and NCL more than plain CLIP?

    python benchmarks/monosemanticity_models.py [--seeds 3] [--steps 400] [--twins DIR] [--data FOLDER]

The comparison of Yan et al. (arXiv 2502.14888; a reimplementation): neurons of the final embedding (both signs), a
batch-top-k dictionary (SAE) and non-negative contrastive features (NCL) of the same embedding, of a plain CLIP and of
one with a self-supervised loss added.

* On the embedded world, the judge is the ground truth: one-hot vectors of the factors in the image and in the caption.
  The models are the twins of `cliplens_hooks.training.world`: `plain` and `slip` (the same architecture, data, steps
  and optimiser, with SLIP's loss added). They are trained here, one per seed, in about five minutes each, and kept in
  --twins. Their retrieval is given too, because a worse model could be less monosemantic for that reason alone. The
  default model, which encodes single-modality factors, is included.
* On coco500 (embeddings of 500 COCO pairs; the images are not available), the judge is a sentence encoder of captions,
  and a random-init twin is included. This needs the extra `judges`, and is skipped without the data.

Every number is the mean over seeds with a 95 % t-interval; on coco500, the seeds are those of the dictionaries.
"""

import json
import os
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import torch
from torch import Tensor

from _bench import bench, mean
from cliplens.records import PairedActs
from cliplens_plugins.modality import class_counts, classify_fixed, mds
from cliplens_plugins.monosemanticity import embsim, ms, winrate
from modality_ground_truth import SCORED, TRAIN, embeddings, read

Features = tuple[Tensor, Tensor]


def neurons(acts: PairedActs) -> Features:
    """Return two features per coordinate of the centred embedding: its positive and its negative part."""
    return tuple(torch.cat([x.relu(), (-x).relu()], dim=1) for x in (s - s.mean(0) for s in (acts.image, acts.text)))  # type: ignore[return-value]


def trained(acts: PairedActs, shown: PairedActs, architecture: str, seed: int, steps: int, d_sae: int) -> Features:
    """Return the codes of `shown` by a dictionary trained on `acts`."""
    from cliplens.sae import dictionary_config, needs_pairs, train
    from cliplens.store import Provider

    batch = min(1024, len(acts) // 2 * 2)
    config = dictionary_config(architecture, acts.image.shape[1], d_sae, k=8)
    provider = Provider.from_acts(acts, batch_size=batch, seed=seed, paired=needs_pairs(architecture))
    dictionary = train(config, provider, samples=batch * steps, batch_size=batch, lr=1e-3, seed=seed)
    codes = dictionary.encode(shown)
    return codes.image.dense(), codes.text.dense()


def figures(codes: Features, judged: tuple[Tensor | None, Tensor]) -> dict[str, float]:
    """Return medians over living latents, for each modality that the judge embeds, and the shares of classes."""
    found: dict[str, float] = {}
    for side, acts, judge in zip(("image", "text"), codes, judged, strict=True):
        if judge is None:
            continue
        for name, score in (("EmbSim", embsim), ("WinRate", winrate), ("MS", ms)):
            values = score(acts.double(), judge.double())
            found[f"{name} {side}"] = (
                float(values[~values.isnan()].median()) if (~values.isnan()).any() else float("nan")
            )
    counts = class_counts(classify_fixed(mds(*codes)))
    living = max(1, sum(counts.values()) - counts["dead"])
    return {**found, **{name: counts[name] / living for name in ("ImgD", "TextD", "CrossD")}}


def twin(folder: Path, name: str, seed: int) -> PairedActs:
    """Return the embeddings of a twin of the embedded model, which is trained and saved first if it is missing."""
    import cliplens
    from cliplens_hooks.models.world import world_tokenizer
    from cliplens_hooks.training.world import RECIPES, save_model, train

    path = folder / f"{name}-{seed}"
    if not (path / "open_clip_model.safetensors").exists():
        recipe = replace(RECIPES[f"world-{name}"], seed=seed)
        save_model(train(recipe), path, recipe=recipe)
    model = open_clip.create_model(f"local-dir:{path}").eval()
    return read(cliplens.wrap(model, tokenizer=world_tokenizer()), TRAIN + SCORED)


def retrieval(acts: PairedActs, n: int = 256) -> float:
    """Return the share of the first n images whose nearest caption is their own; equal captions count as correct."""
    image, text = (torch.nn.functional.normalize(side[:n], dim=1) for side in (acts.image, acts.text))
    similarity = image @ text.T
    return float((similarity.diagonal() >= similarity.amax(1) - 1e-6).double().mean())


def part_of(acts: PairedActs, part: slice) -> PairedActs:
    return PairedActs(acts.ids[part], acts.image[part], acts.text[part])


def world_judges(ids: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Return one-hot vectors of the true factors in images and in captions."""
    from cliplens.world import ground_truth

    truth = ground_truth(TRAIN + SCORED)
    rows = truth.rows(ids)
    judged = []
    for unseen in ("text", "image"):
        factors = [f for f in rows if truth.sharing[f] != unseen]
        hot = [np.eye(len(truth.values[f]))[rows[f]] for f in factors]
        judged.append(torch.tensor(np.hstack([h - h.mean(0) for h in hot])))
    return judged[0], judged[1]


def coco(folder: Path) -> tuple[dict[str, PairedActs], Tensor] | None:
    """Return the embeddings of the model and of its random-init twin, and those of captions by the sentence judge."""
    from cliplens import registry
    from cliplens.errors import MissingExtraError

    file = folder / "coco500" / "coco500_clip_vitb16.npz"
    if not file.exists():
        return None
    held = np.load(file, allow_pickle=False)
    listed = json.loads((folder / "coco500" / "coco500.json").read_text())
    captions = [str(entry["caption"]) for entry in listed]
    ids = tuple(str(i) for i in range(len(captions)))
    models = {}
    for name, ending in (("OpenAI ViT-B/16", ""), ("random-init twin", "_random_init")):
        models[name] = PairedActs(ids, *(torch.tensor(held[side + ending]) for side in ("image", "text")))
    try:
        judged = registry.judge("sentences").embed(None, captions, ids).text
    except MissingExtraError:
        return None
    return models, judged


def main() -> None:
    with bench(
        __file__,
        __doc__,
        seeds=3,
        steps=400,
        twins=(None, "keep the trained twins here, and use those that are there"),
        data=Path(os.environ.get("CLIPLENS_DATA", "data")),
    ) as b:
        rows: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

        def add(what: str, features: str, codes: Features, judged: tuple[Tensor | None, Tensor]) -> None:
            for name, value in figures(codes, judged).items():
                rows[what, features][name].append(value)

        def world(what: str, acts: PairedActs, seed: int) -> None:
            fitted, shown = part_of(acts, slice(0, TRAIN)), part_of(acts, slice(TRAIN, None))
            judged = world_judges(shown.ids)
            add(what, "neurons", neurons(shown), judged)
            for architecture, label in (("batchtopk", "SAE"), ("ncl", "NCL")):
                add(what, label, trained(fitted, shown, architecture, seed, b.args.steps, 256), judged)
            for label in ("neurons", "SAE", "NCL"):
                rows[what, label]["R@1 of 256"].append(retrieval(shown))

        with tempfile.TemporaryDirectory() as made:
            for seed in range(b.args.seeds):
                for name, what in (("plain", "world, plain CLIP"), ("slip", "world, self-supervised CLIP")):
                    world(what, twin(Path(b.args.twins or made), name, seed), seed)
                world("world, default model", embeddings("world", TRAIN + SCORED), seed)
        real = coco(b.args.data)
        for name, given in (real[0] if real else {}).items():
            assert real is not None
            add(f"coco500, {name}", "neurons", neurons(given), (real[1], real[1]))
            for architecture, label in (("batchtopk", "SAE"), ("ncl", "NCL")):
                for seed in range(b.args.seeds):
                    codes = trained(given, given, architecture, seed, b.args.steps, 256)
                    add(f"coco500, {name}", label, codes, (real[1], real[1]))

        columns = list(next(iter(rows.values())))
        b.table(
            f"{b.args.seeds} seeds, medians over latents", {"data": "", "features": "", **dict.fromkeys(columns, ".3f")}
        )
        for (what, features), row in sorted(
            rows.items(), key=lambda item: (not item[0][0].startswith("world"), item[0][0])
        ):
            b.row(what, features, *(mean(row[c]) for c in columns))


if __name__ == "__main__":
    main()
