"""What does steering a diffusers pipeline cost, per denoising step, per call, and in memory?

    python benchmarks/steering_pipelines.py [--rounds 32] [--device cuda] [--width 128]

The pipeline is a real diffusers class with random weights: a text encoder of the size of Stable Diffusion's (12 layers,
width 768) and a small denoiser. Each round runs all cases in random order, each in a context of its own with two calls,
and takes the median time between the ends of two steps. The remaining time is reported for the first call of a context,
which also checks that the edit has an effect, and for a later call. The denoiser is small, so that an overhead is
visible; with a real one, the same milliseconds are a smaller fraction.
"""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from sae_lens import StandardSAEConfig
from sae_lens.saes.standard_sae import StandardSAE
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from _bench import Bench, bench, peak_memory, ratio
from cliplens.edits import LatentSteering, ablate, add, replace
from cliplens.records import ModelIdentity, Provenance
from cliplens.sae import Dictionary
from cliplens_plugins.steering import steer

STEPS, D_SAE = 10, 8 * 768
SITE = "text.blocks.10.hook_resid_post"


def main() -> None:
    with bench(
        __file__,
        __doc__,
        rounds=32,
        width=(64, "channels of the denoiser's first level"),
    ) as b:
        torch.manual_seed(0)
        device = torch.device(b.args.device)
        pipeline = stable_diffusion(b.args.width).to(device)
        dictionary = random_dictionary().to(device)
        cases = contexts(pipeline, dictionary)
        b.note("parameters of the denoiser", sum(p.numel() for p in pipeline.unet.parameters()), ",d")
        report(b, measure(pipeline, cases, b.args.rounds, device))
        memory(b, pipeline, cases)


def contexts(pipeline: Any, dictionary: Dictionary) -> dict[str, Callable[[], Any]]:
    adding = LatentSteering(dictionary, [add([5], 4.0)])
    replacing = LatentSteering(dictionary, [replace([1, 2, 3], [5], 4.0), ablate(range(10, 200))])
    return {
        "stock": nullcontext,
        "dose 0": lambda: steer(pipeline, adding.at_dose(0.0)),
        "add": lambda: steer(pipeline, adding),
        "replace and ablate": lambda: steer(pipeline, replacing),
        "add, window 0 to 0.5": lambda: steer(pipeline, adding, window=(0.0, 0.5)),
    }


def measure(
    pipeline: Any, cases: dict[str, Callable[[], Any]], rounds: int, device: torch.device
) -> dict[str, list[tuple[float, float, float]]]:
    """Return seconds per step, and besides the steps in the first and in a later call, by case and round."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in cases}
    order = random.Random(0)
    for round_number in range(rounds + 1):
        for name in order.sample(list(cases), len(cases)):
            with cases[name]():
                calls = [call_seconds(pipeline, device) for _ in range(2)]
            per_step = median([step for _, steps in calls for step in steps])
            if round_number:  # the first round warms up
                first, later = (total - STEPS * per_step for total, _ in calls)
                found[name].append((per_step, first, later))
    return found


def call_seconds(pipeline: Any, device: torch.device) -> tuple[float, list[float]]:
    """Return the seconds of one call of the pipeline, and those of its steps but the first."""
    ends: list[float] = []

    def at_the_end(pipeline: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        ends.append(now(device))
        return kept

    generator = torch.Generator().manual_seed(0)
    size = {"output_type": "latent", "height": 128, "width": 128}
    start = now(device)
    pipeline("a red ring", num_inference_steps=STEPS, generator=generator, callback_on_step_end=at_the_end, **size)
    return now(device) - start, [b - a for a, b in pairwise(ends)]


def now(device: torch.device) -> float:
    """Return the time when the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def report(b: Bench, seconds: dict[str, list[tuple[float, float, float]]]) -> None:
    heads = {"case": "", "ms per step": ".1f", "ratio to stock": ".3f"}
    b.table("Cost", heads | {"ms besides the steps, first call": ".0f", "ms besides the steps, later calls": ".0f"})
    stock = [step for step, _, _ in seconds["stock"]]
    for name, rounds in seconds.items():
        steps, first, later = zip(*rounds, strict=True)
        b.row(name, 1000 * median(steps), ratio(steps, stock), 1000 * median(first), 1000 * median(later))


def memory(b: Bench, pipeline: Any, cases: dict[str, Callable[[], Any]]) -> None:
    if b.args.device == "cpu":
        b.table("Peak memory of a fresh process, MiB", {"case": "", "peak": ".0f", "against stock": "+.0f"})
        peaks = {name: peak_alone(name, b.args.width) for name in cases}
        for name, peak in peaks.items():
            b.row(name, peak, peak - peaks["stock"])
        b.note("the dictionary itself, MiB", 2 * 768 * D_SAE * 4 / 2**20, ".0f")
        return
    b.table("GPU memory at its peak, MiB", {"case": "", "peak": ".1f"})
    for name, case in cases.items():
        torch.cuda.reset_peak_memory_stats()
        with case():
            call_seconds(pipeline, torch.device(b.args.device))
        b.row(name, torch.cuda.max_memory_allocated() / 2**20)


def peak_alone(case: str, width: int) -> float:
    """Return the peak resident memory in MiB of a new process that makes one call.

    A dictionary is created only if the case steers.
    """
    code = f"from steering_pipelines import print_peak; print_peak({case!r}, {width})"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return float(done.stdout.split()[-1])


def print_peak(case: str, width: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pipeline = stable_diffusion(width)
    steered = nullcontext if case == "stock" else contexts(pipeline, random_dictionary())[case]
    with steered():
        call_seconds(pipeline, torch.device("cpu"))
    print(peak_memory())


def stable_diffusion(width: int) -> Any:
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [" "]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={w: n for n, w in enumerate(words)}, merges=[], model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(width, 2 * width),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=768,
    )
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=[8] * 4, norm_num_groups=4, latent_channels=4, **blocks).eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def random_dictionary() -> Dictionary:
    sae = StandardSAE(StandardSAEConfig(d_in=768, d_sae=D_SAE, device="cpu"))
    identity = ModelIdentity("random", None, "", "", "", "")
    return Dictionary(sae.requires_grad_(False), None, Provenance(identity, (SITE,), 768, "all", False))


if __name__ == "__main__":
    main()
