"""Are names, monosemanticity, fidelity and steering better than what a random dictionary gets?

    python benchmarks/controls.py [--seeds 3] [--steps 400] [--pairs 2048] [--shown 512] [--samples 256]

Three dictionaries per seed over both towers of the embedded model, of the sizes in `modality_ground_truth.py`: trained,
trained with its decoder frozen at random directions (arXiv 2602.14111), and untrained (random unit rows, their
transpose as the encoder). All are measured on the same scenes, which none was trained on. The last column is another
control on the trained dictionary:

- MS: the judge's rows shuffled among the samples. The judge is the truth: one-hot vectors of the scene's factors.
- names: shuffled names.
- loss recovered: by definition 0 at mean ablation and 1 at the model without a dictionary.
- R@1: with the site at its mean.
- steering: the same changes of matched random latents (`_steering/random_latents.py`). A probe reads the attribute from
  the edited embedding. The dose is chosen on other scenes; success is the mean over eight attributes.

Intervals are t-intervals over seeds: they cover dictionaries, not models or worlds.
"""

import json
import tempfile
from collections import defaultdict
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from _bench import Bench, bench, mean
from _steering.data import CHOOSE_SEED, DOSES, SCORE_SEED, TRAIN_SEED, VISIBLE, Sample, embedded, sample_clip
from _steering.methods import Chosen
from _steering.random_latents import latents_and_random
from _steering.readers import Probe
from _steering.scoring import cases_of, chosen_dose, grouped
from cliplens.records import PairedActs, Provenance
from cliplens.run import OpenedRun, Settings, run
from cliplens.sae import Dictionary, dictionary_config, train, untrained_twin
from cliplens.sites import MODALITIES, sites_of
from cliplens.store import Provider
from cliplens.world import FACTORS, draw_scenes
from cliplens_plugins.fidelity.command import fidelity_tables
from cliplens_plugins.monosemanticity import ms
from cliplens_plugins.steering import effect
from modality_ground_truth import Kept

KINDS = ("trained", "decoder frozen", "untrained")
OTHER = "other control"
TRAIN, K = 8192, 8
SITES = sites_of("hook_embedding")
SIDES = {"image": "images", "text": "captions"}
FEW = 8
"""Latents of an edit."""
NAMES = {f"names from {side}, AUROC": f"names_from_{side}_on_{side}" for side in SIDES.values()}
Figures = dict[tuple[str, str], list[float]]
"""Values over seeds by figure and column."""


def dictionary_of(kind: str, rows: PairedActs, seed: int, steps: int) -> Dictionary:
    """Return a dictionary of a kind."""
    origin = Provenance(sample_clip().identity, tuple(map(str, SITES)), rows.image.shape[1], "auto", centred=True)
    provider = Provider.from_acts(rows, batch_size=1024, seed=seed, provenance=origin)
    config = dictionary_config("batchtopk", provider.d_in, 4 * provider.d_in, k=K)
    samples = 1024 * (1 if kind == "untrained" else steps)
    how = {"samples": samples, "batch_size": 1024, "lr": 1e-3, "seed": seed}
    made = train(config, provider, **how, frozen_decoder=kind == "decoder frozen")  # type: ignore[arg-type]
    return untrained_twin(made, K, seed=seed) if kind == "untrained" else made


def truth_of(sample: Sample) -> dict[str, torch.Tensor]:
    """Return one-hot vectors of the factors that each modality shows, less their means."""
    judged = {}
    for modality, unseen in zip(MODALITIES, ("text", "image"), strict=True):
        factors = [f for f in FACTORS.values() if f.sharing != unseen]
        hot = [np.eye(len(f.values))[sample.scenes[f.name]] for f in factors]
        judged[modality] = torch.tensor(np.hstack([h - h.mean(0) for h in hot]))
    return judged


def monosemanticity(dictionary: Dictionary, sample: Sample, seed: int) -> dict[str, tuple[float, float]]:
    """Return the median MS of living latents per modality, and the same by shuffled rows of the judge."""
    codes, judged, found = dictionary.encode(sample.acts), truth_of(sample), {}
    draw = torch.Generator().manual_seed(seed)
    for modality in MODALITIES:
        of_side = codes.of(modality)
        assert of_side is not None
        acts, rows = of_side.dense().double(), judged[modality]
        shuffled = rows[torch.randperm(len(rows), generator=draw)]
        found[f"MS by the truth, {SIDES[modality]}"] = _median(ms(acts, rows)), _median(ms(acts, shuffled))
    return found


def _median(values: torch.Tensor) -> float:
    return float(values[~values.isnan()].median())


def of_run(dictionary: Dictionary, folder: Path, pairs: int, shown: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return figures of a run of the dictionary on pairs, each with the other control (nan without one)."""
    asked = Settings(pairs=f"world:{pairs}:{SCORE_SEED}", sae=str(dictionary.save(folder / "sae")), seed=seed)
    opened = OpenedRun(run(asked, folder / "run", until="name"))
    summary = json.loads(opened.folder.summary.read_text())
    found = {"explained variance": (summary["explained_variance"], float("nan"))}
    found |= {"latents with a name": (float(summary["named"]), float("nan"))}
    found |= {title: (summary[name], summary[f"{name}_shuffled"]) for title, name in NAMES.items()}
    rows = next(iter(fidelity_tables(opened, None, shown).values()))
    loss, recall = (next(r for r in rows if r["figure"] == name) for name in ("contrastive_loss", "image_to_text_r1"))
    found["loss recovered"] = loss["recovered from mean ablation"], 0.0
    found["R@1, image to caption"] = recall["dictionary"], recall["mean ablation"]
    return found | {"R@1, image to caption, without a dictionary": (recall["model"], float("nan"))}


def steered(
    dictionary: Dictionary, choose: Sample, final: Sample, probe: Probe, samples: int, seed: int
) -> tuple[float, float]:
    """Return the success of editing a few latents, and of random ones: the mean over attributes of image embeddings."""
    chosen, shares = Chosen(dictionary, choose), defaultdict(list)
    for attribute in VISIBLE:
        own, known = final.scenes[attribute], np.arange(len(FACTORS[attribute].values))
        rows, target = cases_of(own, known, samples, seed)
        acts = final.of("image")[rows]
        before = probe(acts, "image")
        for name, move in latents_and_random(chosen, "image", attribute, FEW, seed).items():
            dose = chosen_dose(chosen, "image", attribute, known, move, probe, seed, DOSES)
            after = probe(grouped(acts, own[rows], target, move, dose), "image")
            shares[name].append(effect(before, after, attribute, target, dose=dose).success.share)
    return float(np.mean(shares["latents"])), float(np.mean(shares["random latents"]))


@cache
def scenes(pairs: int) -> tuple[PairedActs, Sample, Sample, Probe]:
    """Return the rows to train on, the scenes for choosing doses, those to measure on, and the probe."""
    clip = sample_clip()
    rows = embedded(clip, draw_scenes(TRAIN, seed=TRAIN_SEED)).acts
    choose, final = (embedded(clip, draw_scenes(n, seed=s)) for s, n in ((CHOOSE_SEED, 4096), (SCORE_SEED, pairs)))
    return rows, choose, final, Probe(embedded(clip, draw_scenes(4096, seed=TRAIN_SEED)))


def measure(b: Bench) -> Figures:
    """Return every figure of every dictionary."""
    args, found = b.args, defaultdict(list)
    kept = Kept(Path(args.resume) if args.resume else None)

    def figures(kind: str, seed: int) -> dict[str, tuple[float, float]]:
        rows, choose, final, probe = scenes(args.pairs)
        dictionary = dictionary_of(kind, rows, seed, args.steps)
        with tempfile.TemporaryDirectory() as folder:
            of_one = of_run(dictionary, Path(folder), args.pairs, args.shown, seed)
        of_one |= monosemanticity(dictionary, final, seed)
        return of_one | {f"steering, {FEW} latents": steered(dictionary, choose, final, probe, args.samples, seed)}

    for seed, kind in tqdm(list(product(range(args.seeds), KINDS)), desc="dictionaries", delay=2):
        for name, (value, other) in kept.get((kind, seed, args.steps), partial(figures, kind, seed)).items():
            found[name, kind].append(value)
            if kind == "trained":
                found[name, OTHER].append(other)
    return found


def main() -> None:
    with bench(
        __file__,
        __doc__,
        seeds=3,
        steps=(400, "of 1,024 activations on which a dictionary is trained"),
        pairs=(2048, "pairs every dictionary is measured on"),
        shown=(512, "pairs of retrieval and contrastive loss"),
        samples=(256, "scenes steered per attribute"),
        resume=(None, "keep each dictionary's figures in this file, and use those that are there"),
    ) as b:
        found = measure(b)
        columns = (*KINDS, OTHER)
        b.table("Figures beside their controls", {"figure": "", **dict.fromkeys(columns, ".3f")})
        for name in dict.fromkeys(name for name, _ in found):
            b.row(name, *(mean(found[name, column]) for column in columns))


if __name__ == "__main__":
    main()
