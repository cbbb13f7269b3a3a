"""The inputs of every peer: one ViT of random weights with pictures, and one dictionary of the embedded world."""

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image

from cliplens.arrays import unit_rows
from cliplens.pairs import open_image
from cliplens.records import Evidence, LatentTable
from cliplens.run import Settings, by_modality, run
from cliplens.run.context import RunContext
from cliplens.run.naming import embed_texts
from cliplens.run.scoring import held_out_batches
from cliplens.sae import dictionary_config, train
from cliplens.world import world_pairs
from naming import CLASSES, NAMERS, accepted, finished, shuffled

LEAST = 0.35
"""Smallest correlation of a latent with a value for which the value is what it encodes, as in naming.py."""


def write_vit(folder: Path, name: str, count: int) -> None:
    """Write an open_clip model of random weights, and pictures of the embedded world at its size as PNG and pixels."""
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=None)
    size = model.visual.image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    place = folder / "pictures" / "all"
    place.mkdir(parents=True)
    shown = []
    for n, pair in enumerate(world_pairs(count)):
        picture = open_image(pair).convert("RGB").resize(size, Image.Resampling.BICUBIC)
        picture.save(place / f"{n:05d}.png")
        shown.append(preprocess(picture))
    (folder / "model.txt").write_text(name)
    torch.save(model.state_dict(), folder / "weights.pt")
    np.savez(folder / "pixels.npz", pixels=torch.stack(shown).numpy())


def write_world(folder: Path, pairs: int) -> None:
    """Write rows to train on, activations to score, words to name latents by, and what names are judged by."""
    context, evidence, table = finished(run(Settings(pairs=f"world:{pairs}"), folder / "run"))
    write_rows(folder, context)
    write_activations(folder, context, evidence)
    write_judge(folder, evidence, table)


def write_judge(folder: Path, evidence: Evidence, table: LatentTable) -> None:
    """Write the vocabulary, the words that are right for each latent whose factor captions mention, and our names."""
    right = {
        k: sorted(accepted(str(truth)))
        for k, truth in enumerate(table["truth"])
        if truth and CLASSES[str(table["truth_modality"][k])] == "shared" and table["truth_correlation"][k] >= LEAST
    }
    ours = {namer.name: namer.from_images(evidence) for namer in NAMERS}
    ours[f"{NAMERS[0].name}, shuffled"] = shuffled(ours[NAMERS[0].name], 0)
    said = {name: [one.text for one in names] for name, names in ours.items()}
    judge = {"vocabulary": evidence.vocabulary, "right": right, "ours": said}
    (folder / "judge.json").write_text(json.dumps(judge))


def write_rows(folder: Path, context: RunContext) -> None:
    """Write centred embeddings, images and captions together, and a small top-k dictionary trained on them."""
    (acts,) = context.cache.batches(**by_modality(context.settings.sites), batch_size=10**9)
    sides = [x.float().numpy() for x in (acts.image, acts.text) if x is not None]
    rows = np.concatenate([x - x.mean(0) for x in sides])
    order = np.random.default_rng(0).permutation(len(rows))
    held = len(rows) // 5
    test, learned = rows[order[:held]], rows[order[held:]]
    np.savez(folder / "rows.npz", test=test, train=learned)
    batches = iter(torch.from_numpy(learned[: len(learned) // 256 * 256]).split(256))
    config = dictionary_config("topk", rows.shape[1], 256, k=8)
    sae = train(config, batches, samples=len(learned) // 256 * 256, batch_size=256).sae
    parts = {name: getattr(sae, name).detach().numpy() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    # the rows are centred again, so that of the three offsets of the case exactly one is none
    np.savez(folder / "dictionary.npz", rows=test - test.mean(0), k=8, **parts)


def write_activations(folder: Path, context: RunContext, evidence: Evidence) -> None:
    """Write the activation of each latent on held-out pictures, their embeddings, and their cosine with each word."""
    batches = list(held_out_batches(context))
    acts = torch.cat([b.codes.image.dense() for b in batches if b.codes.image is not None]).float()
    judged = unit_rows(torch.cat([b.acts.image for b in batches if b.acts.image is not None]).float())
    np.savez(folder / "ms.npz", acts=acts.numpy(), judged=judged.numpy())
    words = {"alone": embed_texts(context.clip, evidence.vocabulary), "in_context": evidence.vocabulary_acts}
    near = {kind: (judged @ unit_rows(w.float()).T).numpy() for kind, w in words.items() if w is not None}
    np.savez(folder / "names.npz", acts=acts.numpy(), **near)
