"""Run the benchmark scripts one after the other.

    python -m benchmarks all                  the short form: the tables of README, within an hour on two cores
    python -m benchmarks all --long           every table of README and docs; prints the minutes of each script
    python -m benchmarks world.py scoring.py  some of them
    python -m benchmarks peers                other libraries beside this one, each in an environment of its own
    python -m benchmarks versions             the lowest and newest dependencies, other Pythons, TransformerLens 4
    python -m benchmarks --list               what would run, with its options

Every script writes RESULTS/NAME.json, or RESULTS/short/NAME.json where its short form measures less. If a script
fails, the others still run, and the failure is reported at the end.
"""

import argparse
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"


@dataclass(frozen=True)
class Form:
    """The options of a script in the short and in the long form; None leaves it out of that form."""

    short: str | None
    long: str | None


SCRIPTS: dict[str, Form] = {
    "forward.py": Form("--rounds 7 --batch 8", "--rounds 7 --batch 8"),
    "harvest.py": Form("--rounds 3", ""),
    "harvest_memory.py": Form(None, ""),
    "harvest_compile.py": Form(None, ""),
    "provider.py": Form("--prompts 32", ""),
    "training_step.py": Form("--rounds 3", "--rounds 3"),
    "monosemanticity.py": Form("", ""),
    "scoring.py": Form("", ""),
    "steering_pipelines.py": Form("--rounds 12", "--rounds 24"),
    "processes.py": Form("", ""),
    "modality_ground_truth.py": Form("--classes batchtopk iso_energy:align_coefficient=0.002", ""),
    "controls.py": Form(None, ""),
    "steering.py": Form(
        "--samples 48 --seeds 0 1 2 --rows 1638400 --parts edits mixing", "--samples 48 --seeds 0 1 2 --rows 1638400"
    ),
    "steering_by_words.py": Form("", ""),
    "world.py": Form(None, ""),
    "generator.py": Form(None, ""),
    "attribution.py": Form(None, ""),
    "layer_profile.py": Form(None, "--seeds 3"),
    "causal.py": Form(None, "--seeds 2"),
    "words.py": Form(None, ""),
    "contribution.py": Form(None, "--seeds 3 --world 8192 --pairs 384"),
    "comparison.py": Form(None, "--architectures topk"),
    "sweep.py": Form(None, ""),
    "naming.py": Form(None, "--seeds 2 3 4 5 --judge"),
    "vision_language_namer.py": Form(None, "--models 0 --threads 2"),
    "naming_scale.py": Form(None, ""),
    "threshold.py": Form(None, ""),
    "scaling.py": Form(None, ""),
    "monosemanticity_models.py": Form(None, ""),
    "scale.py": Form(None, ""),
    "pair_list.py": Form(None, ""),
    "mutants.py": Form(None, ""),
    "reliability.py": Form(None, ""),
}
ON_THE_INDEX = {"peers.py": Form("", ""), "versions.py": Form("", "")}
"""Scripts that install packages from the package index; only run when they are named."""
BY_HAND = (
    "on_gpu.py",
    "with_weights.py",
    "advice.py",
    "advice_proof.py",
    "bias.py",
    "bias_drawings.py",
    "robustness.py",
    "report_browser.py",
)
BY_HAND += ("harvest_emoji.py", "emoji.py", "naming_drawings.py", "study_times.py")
"""Scripts that need a GPU, weights, a finished run (and a browser), or a folder of drawings."""


def main() -> None:
    """Run the chosen scripts; exit with 1 if a script failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scripts", nargs="*", default=["all"], help="all, or names of scripts")
    parser.add_argument("--long", action="store_true", help="the form that reproduces every table of the docs")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    chosen = commands(args.scripts, long=args.long, results=args.results)
    if args.list:
        for command in chosen.values():
            print(shlex.join(["python", *command[1:]]))
        return
    started = time.perf_counter()
    failed = [name for name, command in chosen.items() if not run(name, command)]
    print(f"\n{len(chosen)} scripts: {(time.perf_counter() - started) / 60:.0f} minutes", flush=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def commands(scripts: list[str], *, long: bool, results: Path = RESULTS) -> dict[str, list[str]]:
    """Return the command of each chosen script.

    Raises:
        SystemExit: there is no script of that name.
    """
    scripts = [name if name == "all" or name.endswith(".py") else f"{name}.py" for name in scripts]
    known = SCRIPTS | {name: form for name, form in ON_THE_INDEX.items() if name in scripts}
    unknown = sorted(set(scripts) - set(known) - {"all"})
    if unknown:
        raise SystemExit(f"Expected names of scripts, but found {', '.join(unknown)}. Fix: use {', '.join(SCRIPTS)}.")
    found = {}
    for name, form in known.items():
        options = form.long if long or (name in scripts and form.short is None) else form.short
        if options is not None and (name in scripts or "all" in scripts):
            folder = results if options == form.long else results / "short"  # beside the tables of the long form
            found[name] = [sys.executable, str(HERE / name), *shlex.split(options), "--results", str(folder)]
    return found


def run(name: str, command: list[str]) -> bool:
    """Run one script, print how long it took, and return whether it succeeded."""
    print(f"\n## {name}\n", flush=True)
    started = time.perf_counter()
    done = subprocess.run(command, check=False).returncode == 0
    print(f"\n{name}: {(time.perf_counter() - started) / 60:.1f} minutes{'' if done else ', failed'}", flush=True)
    return done


if __name__ == "__main__":
    main()
