"""What does steering a diffusers pipeline cost, per denoising step, per call, and in memory?

    python benchmarks/steering_pipelines.py [--rounds 8] [--device cuda] [--width 128]

The pipeline is a real class with random weights: a text encoder of the size of Stable Diffusion's (12 layers, 768 wide)
and a small denoiser. Stock and steered calls alternate in random order within each round; a step's cost is the
difference of a long and a short call. The denoiser is small so that an overhead shows: with a real one the same
milliseconds are less.
"""

import argparse
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from sae_lens import StandardSAEConfig
from sae_lens.saes.standard_sae import StandardSAE
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from cliplens.edits import LatentSteering, ablate, add, replace
from cliplens.records import ModelIdentity, Provenance
from cliplens.sae import Dictionary
from cliplens_plugins.steering import steer

SHORT, LONG, D_SAE = 2, 10, 8 * 768
SITE = "text.blocks.10.hook_resid_post"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rounds", type=int, default=8)
    asked.add_argument("--device", default="cpu")
    asked.add_argument("--width", type=int, default=64, help="Of the denoiser's first level.")
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--peak", help="Print the peak memory of one case and stop; the script asks itself for it.")
    args = asked.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        print_peak(args.peak, args.width)
        return
    torch.manual_seed(0)
    device = torch.device(args.device)
    pipeline = stable_diffusion(args.width).to(device)
    dictionary = random_dictionary().to(device)
    cases = contexts(pipeline, dictionary)
    seconds = measure(pipeline, cases, args.rounds, device)
    print(machine(device, args.threads, pipeline))
    report(seconds)
    memory(pipeline, cases, device, args.width)


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
) -> dict[str, list[tuple[float, float]]]:
    """Per case and round: (seconds per step, seconds besides the steps)."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    order = random.Random(0)
    for round_number in range(rounds + 1):
        for name in order.sample(list(cases), len(cases)):
            with cases[name]():
                short, long = (timed(pipeline, steps, device) for steps in (SHORT, LONG))
            per_step = (long - short) / (LONG - SHORT)
            if round_number:  # the first round warms up
                found[name].append((per_step, short - SHORT * per_step))
    return found


def timed(pipeline: Any, steps: int, device: torch.device) -> float:
    generator = torch.Generator().manual_seed(0)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    synchronise(device)
    started = clock()
    pipeline("a red ring", num_inference_steps=steps, generator=generator, output_type="latent", height=128, width=128)
    synchronise(device)
    return clock() - started


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def report(seconds: dict[str, list[tuple[float, float]]]) -> None:
    print(f"{'case':<24}{'ms per step':>12}{'ratio to stock (95 %)':>28}{'ms besides steps':>18}")
    stock = [step for step, _ in seconds["stock"]]
    for name, rounds in seconds.items():
        steps, rest = [s for s, _ in rounds], [r for _, r in rounds]
        ratios = [a / b for a, b in zip(steps, stock, strict=True)]
        middle = statistics.median(ratios)
        low, high = interval(ratios)
        print(
            f"{name:<24}{1000 * statistics.median(steps):>12.1f}"
            f"{middle:>12.3f} ({low:.3f}-{high:.3f}){1000 * statistics.median(rest):>16.1f}"
        )


def interval(values: list[float], resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap of the median over rounds."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(resamples))
    return medians[int(0.025 * resamples)], medians[int(0.975 * resamples)]


def memory(pipeline: Any, cases: dict[str, Callable[[], Any]], device: torch.device, width: int) -> None:
    if device.type != "cuda":
        peaks = {name: peak_alone(name, width) for name in cases}
        told = ", ".join(f"{name} {peak - peaks['stock']:+.0f}" for name, peak in peaks.items())
        print(f"\nPeak memory of a fresh process, MiB against stock ({peaks['stock']:.0f}): {told}")
        print(f"The dictionary itself: {2 * 768 * D_SAE * 4 / 2**20:.0f} MiB, shared with its reader.")
        return
    print("\nGPU memory at its peak, MiB")
    for name, case in cases.items():
        torch.cuda.reset_peak_memory_stats()
        with case():
            timed(pipeline, SHORT, device)
        print(f"{name:<24}{torch.cuda.max_memory_allocated() / 2**20:>10.1f}")


def peak_alone(case: str, width: int) -> float:
    """Largest resident memory, MiB, of a fresh process that makes one call; a dictionary is made only to steer."""
    command = [sys.executable, __file__, "--peak", case, "--width", str(width)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(case: str, width: int) -> None:
    torch.manual_seed(0)
    pipeline = stable_diffusion(width)
    steered = nullcontext if case == "stock" else contexts(pipeline, random_dictionary())[case]
    with steered():
        timed(pipeline, SHORT, torch.device("cpu"))
    print(peak_resident())


def peak_resident() -> float:
    """Largest resident memory of this process, MiB; Linux's ru_maxrss begins with that of its parent."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return float(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


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


def machine(device: torch.device, threads: int, pipeline: Any) -> str:
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, {threads} thread(s)"
    size = sum(p.numel() for p in pipeline.unet.parameters()) / 1e6
    versions = ", ".join(f"{p} {version(p)}" for p in ("torch", "diffusers", "transformers"))
    return f"{name}; {versions}; denoiser of {size:.1f} M parameters, 16 x 16 latents\n"


if __name__ == "__main__":
    main()
