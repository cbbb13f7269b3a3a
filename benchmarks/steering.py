"""Does editing a dictionary's latents steer what is drawn, better than simple directions do, and what else changes?

    python benchmarks/steering.py [--samples 96] [--seeds 0 1 2] [--judge FILE] [--out FOLDER] [--no-pictures]

On the embedded world, whose factors are known. Latents, their typical levels, class means, modality classes and the
dose come from one set of pairs; everything is scored on scenes of another seed. The dose is the one that reaches most
targets there with every side effect within 10 %, by the probe. A sample's target is another value of the attribute,
drawn at random; methods and doses see the same samples, targets and generator seeds.

Two readers: `probe`, a linear probe on the edited embedding itself, and `pictures`, the independent judge network on
what the embedded generator draws (of image embeddings, and of captions in the mixing table). A side effect is an
attribute read otherwise than at dose 0.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

import cliplens
from cliplens.edits import LatentSteering, ablate, add, swap
from cliplens.edits import replace as replaced
from cliplens.hooked import HookedCLIP
from cliplens.records import PairedActs, SparseCodes
from cliplens.sae import Dictionary, dictionary_config, train
from cliplens.sites import Modality, Site
from cliplens.stream import stream
from cliplens.world import FACTORS, SHARED, Scenes, draw_scenes, scene_pairs, world_pairs
from cliplens_plugins.generators import WorldGenerator, load_factor_reader
from cliplens_plugins.modality import classify_fixed, mds
from cliplens_plugins.steering import (
    MeanCodes,
    best_latents,
    best_within,
    cosine_shift,
    dose_of_breach,
    dose_slope,
    effect,
    mean_prompts,
    random_direction,
    retrieval,
    share_of,
    typical_level,
    zero_shot,
)
from cliplens_plugins.steering.effects import Effect, Reading

VISIBLE = (*SHARED, "texture", "tint", "light")
DOSES = (0.5, 1.0, 1.5, 2.0, 3.0)
QUICK_DOSES = (1.0, 2.0)
ALPHAS = (0.5, 1.0)
TRAIN_SEED, CHOOSE_SEED, SCORE_SEED, REFERENCE_SEED = 0, 11, 12, 13
LEAST = 0.35
"""Correlation a latent must reach with a value to count as saying it."""
SKIPPED = ("latents: all values out, target in", "latents: target in", "random latents", "difference of means")
SKIPPED += ("latents: mean codes of 2", "latents: mean codes of 4")
"""Methods that are read off embeddings only: drawing costs more, and these say little that the others do not."""
FAINT = 0.15
"""Correlation from which a latent takes part in the edit of mean codes."""
FEW = (2, 4, 8)
"""How many latents an edit of mean codes may move where it may not move all that say something."""
LIMIT = 0.1
CHOOSING = 512
"""Scenes of the choosing split a dose is chosen on."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Scenes with unit-norm embeddings of their pictures and captions."""

    scenes: Scenes
    acts: PairedActs

    def of(self, modality: Modality) -> Tensor:
        found = self.acts.of(modality)
        assert found is not None
        return found


@dataclass(frozen=True, eq=False)
class Chosen:
    """All that is taken from the choosing split: latents that say values, levels, means, classes."""

    dictionary: Dictionary
    sample: Sample

    @cached_property
    def codes(self) -> dict[Modality, SparseCodes]:
        both = self.dictionary.encode(self.sample.acts)
        return {"image": both.image, "text": both.text}  # type: ignore[dict-item]

    def latents(self, modality: Modality, attribute: str) -> list[int | None]:
        values = self.sample.scenes[attribute]
        return best_latents(self.codes[modality], values, len(FACTORS[attribute].values), least=LEAST)

    def mean_codes(self, modality: Modality, attribute: str) -> MeanCodes:
        values = self.sample.scenes[attribute]
        return MeanCodes(self.codes[modality], values, len(FACTORS[attribute].values), least=FAINT)

    def level(self, modality: Modality) -> np.ndarray:
        return typical_level(self.codes[modality])

    def means(self, modality: Modality, attribute: str) -> Tensor:
        acts, values = self.sample.of(modality), torch.from_numpy(self.sample.scenes[attribute])
        return torch.stack([acts[values == v].mean(0) for v in range(len(FACTORS[attribute].values))])

    @cached_property
    def classes(self) -> np.ndarray:
        return classify_fixed(mds(*(self.codes[m].dense() for m in ("image", "text"))))


Moved = Callable[[Tensor, int, int, float], Tensor]
"""(embeddings, own value, target value, dose) -> moved embeddings."""


def methods(chosen: Chosen, modality: Modality, attribute: str, seed: int) -> dict[str, Moved]:
    """Every way to move an embedding from one value of the attribute to another."""
    latents, level = chosen.latents(modality, attribute), chosen.level(modality)
    means, dictionary = chosen.means(modality, attribute), chosen.dictionary
    living = np.flatnonzero(np.nan_to_num(level) > 0)
    shuffled = np.random.default_rng(seed).permutation(living)
    others = [int(k) for k in shuffled if k not in latents][: len(latents)]

    def edited(own: int | None, target: int, dose: float, acts: Tensor, adding_only: bool = False) -> Tensor:
        strength = float(level[target])
        edit = add([target], strength) if adding_only or own is None else replaced([own], [target], strength)
        return LatentSteering(dictionary, [edit], dose=dose).rows(acts, modality)

    def by_latents(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        return edited(latents[own], latents[target], dose, acts)  # type: ignore[arg-type]

    def by_all_latents(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        rest = [k for k in latents if k is not None and k != latents[target]]
        edits = [*([ablate(rest)] if rest else []), add([latents[target]], float(level[latents[target]]))]  # type: ignore[list-item,index]
        return LatentSteering(dictionary, edits, dose=dose).rows(acts, modality)

    mean_codes = chosen.mean_codes(modality, attribute)

    def by_mean_codes(most: int | None) -> Moved:
        def moved(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
            return LatentSteering(dictionary, mean_codes.edits(own, target, most), dose=dose).rows(acts, modality)

        return moved

    def by_adding(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        return edited(None, latents[target], dose, acts, adding_only=True)  # type: ignore[arg-type]

    def by_random_latents(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        return edited(others[own], others[target], dose, acts)

    def by_random_direction(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        return acts + random_direction(by_latents(acts, own, target, dose) - acts, seed * 10_007 + own * 101 + target)

    def by_centroids(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        return acts + dose * (means[target] - means[own])

    def by_difference(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        rest = torch.cat([means[:target], means[target + 1 :]]).mean(0)
        return acts + dose * (means[target] - rest)

    one_latent_each = {
        "latents: own out, target in": by_latents,
        "latents: all values out, target in": by_all_latents,
        "latents: target in": by_adding,
        "random latents": by_random_latents,
        "random direction, equal norm": by_random_direction,
    }
    whole = {
        **{f"latents: mean codes of {few}": by_mean_codes(few) for few in FEW},
        "latents: mean codes of the attribute's": by_mean_codes(None),
        "centroid swap": by_centroids,
        "difference of means": by_difference,
    }
    known = sum(k is not None for k in latents)
    return {**(one_latent_each if known > 1 else {}), **whole}


Reader = Callable[[Tensor, Modality], Reading]


class Probe:
    """A linear probe per attribute and modality on embeddings: multinomial logistic regression on training pairs."""

    def __init__(self, sample: Sample) -> None:
        self.weights = {m: {a: self._fitted(sample, m, a) for a in said(m)} for m in ("image", "text")}

    def __call__(self, acts: Tensor, modality: Modality) -> Reading:
        unit = torch.nn.functional.normalize(acts, dim=-1)
        rows = torch.cat([unit, torch.ones(len(unit), 1)], dim=1)
        return {a: (rows @ w).argmax(1).numpy() for a, w in self.weights[modality].items()}

    def _fitted(self, sample: Sample, modality: Modality, attribute: str) -> Tensor:
        acts = sample.of(modality)
        rows = torch.cat([acts, torch.ones(len(acts), 1)], dim=1)
        labels = torch.from_numpy(sample.scenes[attribute])
        weights = torch.zeros(rows.shape[1], len(FACTORS[attribute].values), requires_grad=True)
        optimiser = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(rows @ weights, labels) + 1e-5 * weights.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        return weights.detach()


def said(modality: Modality) -> tuple[str, ...]:
    """Attributes an embedding of that modality holds and a picture can show."""
    return VISIBLE if modality == "image" else SHARED


def picture_reader(judge_file: Path) -> Reader:
    judge, generator = load_factor_reader(judge_file), WorldGenerator()

    def read(acts: Tensor, modality: Modality) -> Reading:
        drawn = generator.generate(acts, seed=5)
        found = judge.read(drawn)
        return {a: found[a] for a in VISIBLE}

    return read


def score(
    chosen: Chosen,
    sample: Sample,
    modality: Modality,
    attribute: str,
    readers: Mapping[str, Reader],
    n: int,
    seed: int,
    doses: Sequence[float],
) -> list[dict[str, Any]]:
    """Rows of the table: one per reader, method and dose, plus edits of the scene itself where there are any."""
    latents = chosen.latents(modality, attribute)
    known = np.array([v for v, k in enumerate(latents) if k is not None])
    own = sample.scenes[attribute]
    covered = len(known)
    if covered < 2:  # no latent to put in the place of another: edits of many latents and directions only
        known = np.arange(len(latents))
    rows, target = cases_of(own, known, n, seed)
    acts = sample.of(modality)[rows]
    found: list[dict[str, Any]] = []
    moves = methods(chosen, modality, attribute, seed)
    dose_of = {
        name: chosen_dose(chosen, modality, attribute, known, move, readers["probe"], seed, doses)
        for name, move in moves.items()
    }
    moved_scenes = sample.scenes.rows(rows).replaced(**{attribute: target})
    for reader_name, read in readers.items():
        before = read(acts, modality)
        base = {"modality": modality, "attribute": attribute, "reader": reader_name, "seed": seed}
        chosen_moves = moves if reader_name != "pictures" else {m: f for m, f in moves.items() if m not in SKIPPED}
        base |= {"latents": len(chosen.mean_codes(modality, attribute).latents)}
        base |= {"right at dose 0": float(np.mean(before[attribute] == own[rows])), "values": covered}
        for name, move in chosen_moves.items():
            effects, hits = [], []
            for dose in doses:
                after = read(grouped(acts, own[rows], target, move, dose), modality)
                effects.append(effect(before, after, attribute, target, dose=dose))
                hits.append(after[attribute] == target)
            found += rows_of({**base, "chosen": dose_of[name]}, name, effects, np.array(hits))
        for name, edited in scene_edits(sample, moved_scenes, rows, modality, attribute).items():
            after = read(edited, modality)
            one = effect(before, after, attribute, target, dose=1.0)
            found += rows_of({**base, "chosen": 1.0}, name, [one], (after[attribute] == target)[None])
    return found


def cases_of(own: np.ndarray, known: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The first n scenes with one of the known values, and another of them for each to be given."""
    rows = np.flatnonzero(np.isin(own, known))[:n]
    rng = np.random.default_rng(seed)
    return rows, np.array([rng.choice(known[known != own[r]]) for r in rows])


def chosen_dose(
    chosen: Chosen,
    modality: Modality,
    attribute: str,
    known: np.ndarray,
    move: Moved,
    probe: Reader,
    seed: int,
    doses: Sequence[float],
) -> float:
    """The dose that reaches most targets within the limit on the scenes everything is chosen on, read by the probe; the
    smallest where no dose stays within it."""
    own = chosen.sample.scenes[attribute]
    rows, target = cases_of(own, known, CHOOSING, seed)
    acts = chosen.sample.of(modality)[rows]
    before, effects = probe(acts, modality), []
    for dose in doses:
        after = probe(grouped(acts, own[rows], target, move, dose), modality)
        effects.append(effect(before, after, attribute, target, dose=dose))
    best = best_within(effects, LIMIT)
    return min(doses) if best is None else best.dose


def grouped(acts: Tensor, own: np.ndarray, target: np.ndarray, move: Moved, dose: float) -> Tensor:
    """Move each row from its own value to its target."""
    out = acts.clone()
    for o, t in sorted(set(zip(own.tolist(), target.tolist(), strict=True))):
        rows = torch.from_numpy((own == o) & (target == t))
        out[rows] = move(acts[rows], o, t, dose)
    return out


def scene_edits(
    sample: Sample, moved: Scenes, rows: np.ndarray, modality: Modality, attribute: str
) -> dict[str, Tensor]:
    """What is not an edit of an embedding: another word in the caption, or the scene drawn anew (the ceiling)."""
    after = embedded(sample_clip(), moved)
    acts = sample.of(modality)[rows]
    edits = {"the scene itself changed (ceiling)": after.of(modality)}
    if attribute in SHARED and modality == "image":
        edits["prompt edit: caption after less before"] = acts + after.of("text") - sample.of("text")[rows]
    return edits


def rows_of(base: dict[str, Any], name: str, effects: Sequence[Effect], hits: np.ndarray) -> list[dict[str, Any]]:
    slope, low, high = dose_slope([e.dose for e in effects], hits)
    breach = dose_of_breach(effects, LIMIT)
    shared = {"slope": slope, "slope_low": low, "slope_high": high, "breach": breach}
    return [
        {
            **base,
            "method": name,
            "dose": e.dose,
            "success": e.success.share,
            "low": e.success.low,
            "high": e.success.high,
            "n": e.success.n,
            "worst": e.worst,
            "changed": {a: s.share for a, s in e.changed.items()},
            **shared,
        }
        for e in effects
    ]


def mixing(
    chosen: Chosen, sample: Sample, other: Sample, readers: Mapping[str, Reader], n: int, seed: int
) -> list[dict[str, Any]]:
    """The paper's control: captions, with latents of one class taken from a reference picture of another scene."""
    text, reference = sample.of("text")[:n], other.of("image")[:n]
    ids = tuple(str(i) for i in range(n))
    codes = chosen.dictionary.encode(PairedActs(ids, reference, None)).image
    assert codes is not None
    found: list[dict[str, Any]] = []
    for reader_name, read in readers.items():
        before = read(text, "text")
        for kind, latents in classes_to_mix(chosen, seed).items():
            for alpha in ALPHAS:
                if not latents:
                    continue
                steering = LatentSteering(chosen.dictionary, [swap(latents, alpha)], reference=codes.dense())
                after = read(steering.rows(text, "text"), "text")
                for attribute in before:
                    taken = after[attribute] == other.scenes[attribute][:n]
                    differs = sample.scenes[attribute][:n] != other.scenes[attribute][:n]
                    rows = differs if attribute in SHARED else np.ones(n, dtype=bool)
                    changed, got = share_of((before[attribute] != after[attribute])[rows]), share_of(taken[rows])
                    found.append(
                        {
                            "reader": reader_name,
                            "class": kind,
                            "latents": len(latents),
                            "alpha": alpha,
                            "attribute": attribute,
                            "seed": seed,
                            "changed": changed.share,
                            "changed_low": changed.low,
                            "changed_high": changed.high,
                            "taken": got.share,
                            "chance": 1 / len(FACTORS[attribute].values),
                        }
                    )
    return found


def classes_to_mix(chosen: Chosen, seed: int) -> dict[str, list[int]]:
    classes = chosen.classes
    found = {c: [int(k) for k in np.flatnonzero(classes == c)] for c in ("ImgD", "TextD", "CrossD")}
    everything = sorted(k for latents in found.values() for k in latents)
    rng = np.random.default_rng(seed)
    found["all"] = everything
    found["random, as many as ImgD"] = sorted(rng.choice(everything, len(found["ImgD"]), replace=False).tolist())
    return found


def clip_itself(chosen: Chosen, sample: Sample, n: int, seed: int) -> list[dict[str, Any]]:
    """Colour edited in image embeddings: what zero-shot says, and which caption is retrieved."""
    clip, attribute = sample_clip(), "colour"
    banks, rng = prompt_banks(clip), np.random.default_rng(seed)
    own = sample.scenes[attribute][:n]
    target = (own + rng.integers(1, len(FACTORS[attribute].values), n)) % len(FACTORS[attribute].values)
    acts, captions = sample.of("image")[:n], sample.of("text")[:n]
    reworded = embedded(clip, sample.scenes.rows(np.arange(n)).replaced(**{attribute: target})).of("text")
    before, found = zero_shot(acts, banks), []
    for name, move in methods(chosen, "image", attribute, seed).items():
        for dose in (0.0, *DOSES):
            moved = grouped(acts, own, target, move, dose)
            one = effect(before, zero_shot(moved, banks), attribute, target, dose=dose)
            shift = cosine_shift(acts, moved, banks)
            at_target = float(np.mean(shift[attribute][target]))
            others = max(float(np.abs(v).max()) for a, v in shift.items() if a != attribute)
            ranks = [retrieval(moved, c, at=(1,))["image_to_text_r1"] for c in (captions, reworded)]
            found.append(
                {"method": name, "dose": dose, "success": one.success.share, "worst": one.worst, "shift": at_target}
                | {"other shift": others, "R@1 own caption": ranks[0], "R@1 reworded caption": ranks[1]}
            )
    return found


def prompt_banks(clip: HookedCLIP, contexts: int = 64) -> dict[str, Tensor]:
    """One text embedding per value of each shared attribute, over contexts that all its values share."""
    scenes, banks = draw_scenes(contexts, seed=REFERENCE_SEED + 1), {}
    for attribute in SHARED:
        n_values = len(FACTORS[attribute].values)
        per_value = [embedded(clip, scenes.replaced(**{attribute: v})).of("text") for v in range(n_values)]
        banks[attribute] = mean_prompts(torch.stack(per_value))
    return banks


def clip_table(rows: Sequence[dict[str, Any]]) -> None:
    print("\nCLIP itself: colour edited in image embeddings, read by zero-shot prompts and by retrieval")
    names = [n for n in rows[0] if n != "method"]
    print(f"{'':<40}" + "".join(f"{n:>22}" for n in names))
    for row in rows:
        print(f"{row['method']:<40}" + "".join(f"{row[n]:>22.2f}" for n in names))


_CLIP: list[HookedCLIP] = []


def sample_clip() -> HookedCLIP:
    if not _CLIP:
        _CLIP.append(cliplens.load("world", device="cpu"))
    return _CLIP[0]


def embedded(clip: HookedCLIP, scenes: Scenes) -> Sample:
    pairs = scene_pairs(scenes, ids=[str(i) for i in range(len(scenes))])
    sites = [Site("vision", "hook_embedding"), Site("text", "hook_embedding")]
    parts = list(stream(clip, pairs, sites, forward_batch=256))
    image, text = (torch.cat([p.of(m) for p in parts]) for m in ("image", "text"))  # type: ignore[misc]
    return Sample(scenes, PairedActs(tuple(i for p in parts for i in p.ids), image.float(), text.float()))


def trained(clip: HookedCLIP, seed: int, d_sae: int, k: int, rows: int) -> Dictionary:
    provider = cliplens.activations(clip, world_pairs(16_384, seed=TRAIN_SEED), batch_size=1024, seed=seed)
    config = dictionary_config("batchtopk", provider.d_in, d_sae, k=k)
    return train(config, provider, samples=rows, batch_size=1024, lr=1e-3, seed=seed, device="cpu")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--samples", type=int, default=96, help="Scenes per attribute and method.")
    asked.add_argument("--seeds", type=int, nargs="+", default=[0], help="Of the dictionary and the controls.")
    asked.add_argument("--d-sae", type=int, default=256)
    asked.add_argument("--k", type=int, default=8)
    asked.add_argument("--rows", type=int, default=409_600, help="Activations the dictionary is trained on.")
    asked.add_argument("--quick", action="store_true", help="About a minute: 24 scenes, one seed, three doses.")
    asked.add_argument("--judge", type=Path, default=Path(tempfile.gettempdir()) / "cliplens-world-judge.safetensors")
    asked.add_argument("--out", type=Path, default=None, help="Folder for steering.json and steering.png.")
    asked.add_argument("--parts", nargs="+", default=["edits", "mixing", "clip"], help="Which tables to make.")
    asked.add_argument("--no-pictures", action="store_true", help="Read embeddings only; needs no generator.")
    args = asked.parse_args()
    torch.set_num_threads(1)
    doses: Sequence[float] = DOSES
    if args.quick:
        args.samples, args.seeds, doses = 24, args.seeds[:1], QUICK_DOSES
    clip = sample_clip()
    sizes = {CHOOSE_SEED: 4096, SCORE_SEED: max(1024, 4 * args.samples), REFERENCE_SEED: max(512, 2 * args.samples)}
    choose, final, other = (embedded(clip, draw_scenes(n, seed=s)) for s, n in sizes.items())
    readers: dict[str, Reader] = {"probe": Probe(embedded(clip, draw_scenes(4096, seed=TRAIN_SEED)))}
    if not args.no_pictures:
        readers["pictures"] = picture_reader(args.judge)
    rows, mixed, coverage, itself = [], [], [], []
    cases = [(m, a) for m in ("image", "text") for a in said(m)] if "edits" in args.parts else []
    for seed in args.seeds:
        chosen = Chosen(trained(clip, seed, args.d_sae, args.k, args.rows), choose)
        coverage.append({c: int(np.sum(chosen.classes == c)) for c in ("ImgD", "TextD", "CrossD", "dead")})
        for modality, attribute in tqdm(cases, delay=2, desc=f"seed {seed}"):
            by = readers if modality == "image" else {"probe": readers["probe"]}
            rows += score(chosen, final, modality, attribute, by, args.samples, seed, doses)
        if "mixing" in args.parts:
            mixed += mixing(chosen, final, other, readers, 2 * args.samples, seed)
        if "clip" in args.parts and seed == args.seeds[0]:
            itself = clip_itself(chosen, final, 512, seed)
    print(machine(args))
    print("Latents per class: " + "; ".join(str(c) for c in coverage))
    table(rows)
    mixing_table(mixed)
    if itself:
        clip_table(itself)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "steering.json").write_text(
            json.dumps({"rows": rows, "mixing": mixed, "clip": itself}, indent=1) + "\n"
        )
        if rows:
            figure(rows, args.out / "steering.png")


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Per case and method: what the dose chosen beforehand does (one per seed), and the most success at any dose."""
    for modality, reader in sorted({(r["modality"], r["reader"]) for r in rows}):
        print(f"\n{modality} embeddings, read by {reader}. Success at the dose chosen beforehand | at any dose")
        for attribute in VISIBLE:
            mine = [r for r in rows if (r["modality"], r["reader"], r["attribute"]) == (modality, reader, attribute)]
            if not mine:
                continue
            right = np.mean([r["right at dose 0"] for r in mine])
            values = f"{mine[0]['values']} of {len(FACTORS[attribute].values)} values have a latent"
            values += f"; {mine[0]['latents']} latents say something of it"
            print(f"{attribute} ({values}; right at dose 0: {right:.2f})")
            for method in dict.fromkeys(r["method"] for r in mine):
                print("  " + line(method, [r for r in mine if r["method"] == method]))


def line(method: str, rows: Sequence[dict[str, Any]]) -> str:
    doses = sorted({r["dose"] for r in rows})
    pooled = [pooled_effect([r for r in rows if r["dose"] == d]) for d in doses]
    most = max(pooled, key=lambda e: e.success.share)
    at_chosen = [r for r in rows if r["dose"] == r["chosen"]]
    kept, at = pooled_effect(at_chosen), "/".join(f"{r['chosen']:g}" for r in at_chosen)
    told = f"{kept.success.share:.2f} ({kept.success.low:.2f}-{kept.success.high:.2f}) at {at}, worst {kept.worst:.2f}"
    which = max(most.changed, key=lambda a: most.changed[a].share)
    span = f"{most.success.low:.2f}-{most.success.high:.2f}"
    slope = ""
    if len(doses) > 1:
        parts = [np.mean([r[k] for r in rows]) for k in ("slope", "slope_low", "slope_high")]
        slope = f" slope {parts[0]:+.2f} ({parts[1]:+.2f} to {parts[2]:+.2f})"
    return (
        f"{method:<40}{told:<42}| {most.success.share:.2f} ({span}) at {most.dose:g}, "
        f"worst {most.worst:.2f} ({which}){slope}"
    )


def pooled_effect(rows: Sequence[dict[str, Any]]) -> Effect:
    """One dose over seeds: samples are pooled."""
    n = sum(r["n"] for r in rows)
    hits = round(sum(r["success"] * r["n"] for r in rows))
    changed = {}
    for attribute in rows[0]["changed"]:
        moved = round(sum(r["changed"][attribute] * r["n"] for r in rows))
        changed[attribute] = share_of(np.arange(n) < moved)
    return Effect(rows[0]["dose"], share_of(np.arange(n) < hits), changed)


def mixing_table(mixed: Sequence[dict[str, Any]]) -> None:
    for reader in dict.fromkeys(m["reader"] for m in mixed):
        mine = [m for m in mixed if m["reader"] == reader]
        attributes = list(dict.fromkeys(m["attribute"] for m in mine))
        print(f"\nCaption with latents of a reference picture, read by {reader}: changed / read as the reference")
        print(f"{'':<34}" + "".join(f"{a:>12}" for a in attributes))
        for kind in dict.fromkeys(m["class"] for m in mine):
            for alpha in ALPHAS:
                cells = []
                for a in attributes:
                    rows = [m for m in mine if (m["class"], m["alpha"], m["attribute"]) == (kind, alpha, a)]
                    means = [np.mean([r[k] for r in rows]) for k in ("changed", "taken")] if rows else [np.nan, np.nan]
                    cells.append(f"{means[0]:.2f}/{means[1]:.2f}")
                size = next((m["latents"] for m in mine if m["class"] == kind), 0)
                print(f"{f'{kind} ({size}), alpha {alpha:g}':<34}" + "".join(f"{c:>12}" for c in cells))


def figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Success (full lines) and the worst side effect (dashed) against the dose."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    reader = "pictures" if any(r["reader"] == "pictures" for r in rows) else "probe"
    mine = [r for r in rows if r["reader"] == reader and r["modality"] == "image"]
    attributes = [a for a in VISIBLE if any(r["attribute"] == a for r in mine)]
    names = ["latents: own out, target in", "latents: mean codes of 8", "centroid swap", "random direction, equal norm"]
    fig, axes = plt.subplots(2, 4, figsize=(13, 6), sharex=True, sharey=True)
    for axis, attribute in zip(axes.flat, attributes, strict=False):
        for colour, name in enumerate(names):
            here = [r for r in mine if r["attribute"] == attribute and r["method"] == name]
            doses = sorted({r["dose"] for r in here})
            effects = [pooled_effect([r for r in here if r["dose"] == d]) for d in doses]
            low, high = [e.success.low for e in effects], [e.success.high for e in effects]
            axis.plot([0, *doses], [0, *(e.success.share for e in effects)], color=f"C{colour}", label=name)
            axis.fill_between(doses, low, high, color=f"C{colour}", alpha=0.15, linewidth=0)
            axis.plot([0, *doses], [0, *(e.worst for e in effects)], "--", color=f"C{colour}", linewidth=1)
        axis.axhline(LIMIT, color="grey", linewidth=0.5)
        axis.set_title(attribute)
        axis.set_ylim(0, 1)
    for axis in axes[-1]:
        axis.set_xlabel("dose")
    axes[0, 0].set_ylabel("share of samples")
    axes[1, 0].set_ylabel("share of samples")
    fig.suptitle(f"Target reached (full) and worst side effect (dashed), read by {reader}")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncol=4)
    fig.tight_layout(rect=(0, 0.05, 1, 1))
    fig.savefig(path, dpi=110)


def machine(args: argparse.Namespace) -> str:
    versions = ", ".join(f"{p} {version(p)}" for p in ("cliplens", "torch", "sae-lens"))
    asked = f"{args.samples} scenes per attribute, seeds {args.seeds}, dictionaries trained on {args.rows} rows"
    return f"{platform.machine()}, 1 thread; {versions}; {asked}"


if __name__ == "__main__":
    main()
