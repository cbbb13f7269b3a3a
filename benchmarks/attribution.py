"""Do attributions add up on a trained model, do they predict ablations, and what does a spliced dictionary cost?

    python benchmarks/attribution.py [--pairs 128] [--train 4096] [--samples 120000] [--rounds 9]

A dictionary over both modalities is trained on the embedded world at each hook. On other pairs, the script measures the
largest difference between the sum of an attribution and the model's similarity (float32), and, over latents that fire,
the correlation of the attribution with the effect of ablating the latent through its hook (with the error term; norms
and later blocks are recomputed). Costs are paired ratios to a plain forward of the same batch.
"""

from argparse import Namespace
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

import cliplens
from _bench import Bench, alternate, bench, ratio
from cliplens.analysis import attribute_heads, attribute_latents
from cliplens.hooked import HookedCLIP
from cliplens.sae import Dictionary, dictionary_config, train
from cliplens.world import world_pairs

HOOKS = ("hook_embedding", "blocks.2.hook_resid_post", "blocks.1.hook_resid_post")


def trained(clip: HookedCLIP, hook: str, options: Namespace) -> Dictionary:
    """Train a small top-k dictionary over both modalities."""
    provider = cliplens.activations(clip, world_pairs(options.train), hook=hook, batch_size=512)
    config = dictionary_config("topk", provider.d_in, k=12)
    return train(config, provider, samples=options.samples, batch_size=512, lr=2e-3)


def shown(clip: HookedCLIP, n: int) -> tuple[Tensor, Tensor]:
    """Return images and captions on which no dictionary was trained."""
    pairs = list(world_pairs(n, seed=7))
    images = torch.stack([clip.preprocess(pair.image) for pair in pairs])  # type: ignore[misc]
    return images, clip.tokenizer([str(pair.caption) for pair in pairs])  # type: ignore[misc]


@torch.no_grad()
def ablations(
    clip: HookedCLIP, side: str, inputs: Tensor, towards: Tensor, dictionary: Dictionary, hook: str
) -> Tensor:
    """Return attributions and effects of ablation of single latents, [effect, 2]."""
    tower = clip.towers[side]  # type: ignore[index]
    found = attribute_latents(tower, inputs, towards, dictionary)
    codes = f"{hook}.hook_sae_acts_post"
    effects = []
    with tower.saes(dictionary, use_error_term=True):
        before = (tower.encode(inputs)[1] * towards).sum(-1)
        for latent in found.parts.abs().amax(0).nonzero()[:, 0].tolist():
            with tower.hooks([(codes, _without(latent))]):
                after = (tower.encode(inputs)[1] * towards).sum(-1)
            fires = found.parts[:, latent] != 0
            effects.append(torch.stack([found.parts[fires, latent], (before - after)[fires]], 1))
    return torch.cat(effects)


def _without(latent: int) -> Callable[..., Tensor]:
    def ablate(codes: Tensor, hook: object) -> Tensor:
        codes = codes.clone()
        codes[..., latent] = 0
        return codes

    return ablate


def main() -> None:
    with bench(__file__, __doc__, pairs=128, train=4096, samples=120_000, rounds=9) as b:
        torch.manual_seed(0)
        clip = cliplens.load("world")
        images, tokens = shown(clip, b.args.pairs)
        with torch.no_grad():
            seen, read = clip.encode_image(images, normalize=True), clip.encode_text(tokens, normalize=True)
        sides = {"vision": (images, read), "text": (tokens, seen)}
        exact = (seen * read).sum(-1)
        b.note("mean similarity", exact.mean(), ".3f")
        columns = {"hook": "", "tower": "", "largest gap of the sum": ".1e", "latents' share": ".2f"}
        columns |= {"r with ablation": ".3f", "slope": ".2f", "effects": ""}
        b.table(f"Attribution of the similarity, {b.args.pairs} pairs of the world", columns)
        for hook in HOOKS:
            dictionary = trained(clip, hook, b.args)
            for side, (inputs, towards) in sides.items():
                found = attribute_latents(clip.towers[side], inputs, towards, dictionary)  # type: ignore[index]
                gap = float((found.total - exact).abs().max())
                share = float(found.parts.sum() / exact.sum())
                attributed, true = ablations(clip, side, inputs, towards, dictionary, hook).T
                r = float(torch.corrcoef(torch.stack([attributed, true]))[0, 1])
                slope = float((attributed * true).sum() / attributed.pow(2).sum())
                b.row(hook, side, gap, share, r, slope, len(true))
        for side, (inputs, towards) in sides.items():
            heads = attribute_heads(clip.towers[side], inputs, towards)  # type: ignore[index]
            b.row("heads and MLPs", side, float((heads.total - exact).abs().max()), None, None, None, None)
        costs(b, clip, images, tokens, dictionary)


@torch.no_grad()
def costs(b: Bench, clip: HookedCLIP, images: Tensor, tokens: Tensor, dictionary: Dictionary) -> None:
    """Print ratios to a plain forward of both towers."""
    hook = HOOKS[-1]
    names = [f"vision.{hook}", f"text.{hook}"]
    spliced = cliplens.load("world")
    spliced.add_sae(dictionary)
    with_error = cliplens.load("world")
    with_error.add_sae(dictionary, use_error_term=True)
    cases = {
        "plain": lambda: clip(images, tokens),
        "run_with_cache, that hook": lambda: clip.run_with_cache(images, tokens, names_filter=names),
        "dictionary in both towers": lambda: spliced(images, tokens),
        "with error term": lambda: with_error(images, tokens),
        "with error term, codes cached": lambda: with_error.run_with_cache(
            images, tokens, names_filter=[f"{name}.hook_sae_acts_post" for name in names]
        ),
        "put in and taken out again": lambda: clip.run_with_saes(images, tokens, saes=dictionary),
    }
    seconds = alternate(cases, b.args.rounds)
    b.table(f"Cost, {len(images)} pairs, {hook}, d_sae {dictionary.d_sae}", {"case": "", "ms": ".1f", "ratio": ".2f"})
    for name, taken in seconds.items():
        b.row(name, 1e3 * median(taken), ratio(taken, seconds["plain"]))


if __name__ == "__main__":
    main()
