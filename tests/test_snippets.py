"""The Python snippets of README and docs run, and the commands they show have the arguments they are given.

Snippets of a page run one after another in one namespace, after the page's preparation. Large numbers and
downloads are replaced by small local ones. The script in README's diff has its own test in test_readme.py.
"""

import ast
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer import Context
from typer.core import TyperGroup
from typer.main import get_command

import cliplens
from cliplens.cli import app
from cliplens.exemplars import save_exemplars
from cliplens.records import Column, Exemplars, LatentTable, Pair
from cliplens.run import run
from cliplens.settings import Settings
from support.study_runs import study_run
from support.tiny_dictionaries import tiny_dictionary

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
Namespace = dict[str, Any]


def fenced(text: str) -> list[str]:
    """Return the blocks fenced as python."""
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def indented(text: str) -> list[str]:
    """Return the indented blocks outside fences and lists, without their indentation."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"(?:\A|\n)\n((?:    .*\n(?:\n(?=    ))?)+)", outside)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in found]


def is_python(block: str) -> bool:
    try:
        statements = ast.parse(block).body
    except SyntaxError:
        return False
    return any(not isinstance(s, ast.Expr) or isinstance(s.value, ast.Call | ast.Subscript) for s in statements)


def snippets(page: Path) -> list[str]:
    """Return the Python snippets of a page in order of appearance."""
    text = page.read_text()
    found = [*fenced(text), *filter(is_python, indented(text))]
    return sorted(found, key=lambda block: text.find(block.splitlines()[0]))


@dataclass(frozen=True)
class Page:
    """How the snippets of a page are run."""

    prepare: Callable[[Path], Namespace] = lambda _: {}
    smaller: dict[str, str] = field(default_factory=dict)
    """Texts to replace; each must occur."""


def world_inputs(folder: Path) -> Namespace:
    """Return the embedded model, a few pairs as inputs, and a dictionary on its final embedding."""
    clip, pairs = cliplens.load("world", device="cpu"), cliplens.read_pairs("world:8")
    images, tokens = clip.batch(pairs)
    sites = ("vision.hook_embedding", "text.hook_embedding")
    dictionary = _of(clip, tiny_dictionary(64, 96, sites=sites, means=True))
    dictionary.save(folder / "run" / "sae")
    return {"clip": clip, "pairs": pairs, "images": images, "tokens": tokens, "dictionary": dictionary}


def _of(clip: Any, dictionary: Any) -> Any:
    """Return the dictionary with the identity of the model, as if it had been trained on it."""
    from dataclasses import replace

    provenance = replace(dictionary.provenance, model=clip.identity)
    return cliplens.Dictionary(dictionary.sae, dictionary.means, provenance)


def halve(codes: Any, hook: Any) -> Any:
    """Halve the codes, as a hook."""
    return 0.5 * codes


@cache
def pipeline_and_run() -> "TemporaryDirectory[str]":
    """Make a folder with a pipeline in sd/ and a run on its text encoder in text-run/, once for all pages."""
    from support import tiny_pipelines

    made = TemporaryDirectory()
    folder = Path(made.name)
    tiny_pipelines.stable_diffusion().save_pretrained(folder / "sd")
    model = f"hf:{folder}/sd/text_encoder"
    named_run(folder, "text-run", model=model, tower="text", hook="blocks.1.hook_resid_post")
    return made


def reading(folder: Path) -> Namespace:
    """Return what README's snippets use: inputs, a pipeline in sd/ and a run on its text encoder in text-run/."""
    diffusers = pytest.importorskip("diffusers")
    for name in ("sd", "text-run"):
        (folder / name).symlink_to(Path(pipeline_and_run().name) / name)
    return {**world_inputs(folder), "ablate": halve, "diffusers": diffusers}


def tutorial(folder: Path) -> Namespace:
    """Put a pipeline in sd15/ and a run on its text encoder in sd15-run/."""
    pytest.importorskip("diffusers")
    (folder / "sd15").symlink_to(Path(pipeline_and_run().name) / "sd")
    (folder / "sd15-run").symlink_to(Path(pipeline_and_run().name) / "text-run")
    return {}


def steering(folder: Path) -> Namespace:
    """Return a target to steer and a run on it in run/."""
    named_run(folder, "run", model="world")
    return {"target": cliplens.load("world", device="cpu"), "cliplens": cliplens}


def scored(folder: Path) -> Namespace:
    """Make a scored run in run/, with a random dictionary."""
    study_run(folder, "world:60")
    return {}


def named_run(folder: Path, name: str, **options: Any) -> None:
    """Train a run on very few pairs; give its first latents the names red and blue, and levels."""
    (folder / "captions.csv").write_text("caption\n" + "".join(f"a {c} x{c}\n" for c in "abcdefghijklmnopqrst"))
    pairs = "world:24" if options["model"] == "world" else str(folder / "captions.csv")
    small: dict[str, Any] = {"d_sae": 16, "k": 4, "samples": 64, "batch_size": 32, "device": "cpu", "held_out": 0.4}
    made = run(Settings(pairs=pairs, **small, **options), folder / name, until="train")
    names = np.array(["red", "blue"] + ["unnamed"] * 14, dtype=object)
    LatentTable({"name": names, "name_score": np.ones(16)}).save(made.latents)
    at, values = np.zeros((16, 1), dtype=np.int64), np.full((16, 1), 2.0)
    save_exemplars(made.exemplars, None, Exemplars("text", (Pair("a", None, "a red ring"),), at, values))


def analysis(folder: Path) -> Namespace:
    """Return inputs and two dictionaries at a residual hook of each tower."""
    made = world_inputs(folder)
    sites = ("vision.blocks.1.hook_resid_post", "text.blocks.1.hook_resid_post")
    saes = []
    for site in sites:
        sae = tiny_dictionary(96, 48).sae
        sae.cfg.metadata.hook_name = site
        saes.append(sae)
    residual = _of(made["clip"], tiny_dictionary(96, 48, sites=sites, means=True))
    _, cache = made["clip"].vision.run_with_cache(made["images"])
    labels = torch.zeros(len(made["images"]), dtype=torch.long)
    more = {"sae_a": saes[0], "sae_b": saes[1], "ablate": halve, "labels": labels}
    return {**made, **more, "dictionary": residual, "world_dictionary": made["dictionary"], "vision_cache": cache}


def files(folder: Path) -> Namespace:
    """Return a model; write the pictures, captions and embeddings that the page names."""
    for name in "ab":
        Image.new("RGB", (8, 8), "red").save(folder / f"{name}.png")
    rows = np.random.default_rng(0).normal(size=(2, 12, 8)).astype(np.float32)
    np.save(folder / "image.npy", rows[0])
    np.save(folder / "text.npy", rows[1])
    (folder / "captions.txt").write_text("a cat\n" * 12)
    return {"clip": cliplens.load("world", device="cpu")}


def recipes(folder: Path) -> Namespace:
    """Return inputs and a picture; write a small table of latents."""
    made = world_inputs(folder)
    (folder / "table").mkdir()
    about = Column("mds", "Where it fires.")
    LatentTable({"mds": np.array([0.5, 0.1])}, {"mds": about}).save(folder / "table" / "latents.parquet")
    return {**made, "picture": made["pairs"][1].image, "cliplens": cliplens}


RUN = {
    "README.md": Page(
        reading,
        {
            '"ViT-B-32", pretrained="laion2b_s34b_b79k"': '"world", device="cpu"',
            "blocks.9.": "blocks.2.",
            "blocks.3.": "blocks.1.",
            '(pipe, "run/"': '(pipe, "text-run/"',
            'pipe("a red ring")': 'pipe("a red ring", num_inference_steps=1, height=32, width=32)',
        },
    ),
    "CONTRIBUTING.md": Page(),
    "docs/advice.md": Page(lambda _: {name: np.random.rand(40, 6) for name in ("image_codes", "text_codes")}),
    "docs/contribution.md": Page(scored, {"512": "16", "[problem])": "[problem], controls=0)"}),
    "docs/analysis.md": Page(
        analysis,
        {
            "blocks.9.": "blocks.1.",
            "stack, names = cache.": "stack, names = vision_cache.",
            "cache.logit_attrs": "vision_cache.logit_attrs",
        },
    ),
    "docs/comparison.md": Page(
        smaller={'"world:2048", d_sae=64': '"world:192", d_sae=16, samples=256, batch_size=64', "[4, 8]": "[2, 4]"}
    ),
    "docs/data.md": Page(files, {', "run")': ', "run", until="harvest")'}),
    "docs/dictionaries.md": Page(
        lambda _: {},
        {
            '"world:20480"': '"world:64"',
            "batch_size=1024": "batch_size=32",
            '("batchtopk", d_in=64)': '("batchtopk", d_in=64, d_sae=32, k=4)',
            "samples=400_000": "samples=64",
            ".run()\n": "\n",
        },
    ),
    "docs/generator.md": Page(world_inputs),
    "docs/how-to.md": Page(
        recipes,
        {
            '"captions.csv"': '"world:400"',
            "2000": "100",
            "4096": "64",
            "20_000_000": "2_560",
            "k=32": "k=4",
            "=10, eval_every_n_wandb_logs=10": "=2, eval_every_n_wandb_logs=2",
            '"run/latents.parquet"': '"table/latents.parquet"',
        },
    ),
    "docs/metrics.md": Page(),
    "docs/robustness.md": Page(),
    "docs/steering.md": Page(steering),
    "docs/steering-tutorial.md": Page(
        tutorial, {'pipe("a red ring")': 'pipe("a red ring", num_inference_steps=1, height=32, width=32)'}
    ),
    "docs/words.md": Page(),
    "docs/world.md": Page(smaller={"20_480": "64", "20480": "64"}),
}
LEFT_OUT = {"Dictionary.from_pretrained(": "opens releases on the Hugging Face hub: tests/src/sae/test_pretrained.py"}
"""Snippets that cannot run here, by a text in them, and what tests the same."""


def test_every_page_with_snippets_is_run() -> None:
    assert sorted(RUN) == sorted(str(page.relative_to(ROOT)) for page in PAGES if snippets(page))


SLOW = ("docs/comparison.md", "docs/contribution.md")
"""Pages whose preparation takes seconds."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW)) for page in RUN])
def test_the_snippets_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = [s for s in snippets(ROOT / page) if not any(text in s for text in LEFT_OUT)]
    assert found
    for text in RUN[page].smaller:
        assert any(text in s for s in found), text
    namespace = RUN[page].prepare(tmp_path)
    for snippet in found:
        for text, small in RUN[page].smaller.items():
            snippet = snippet.replace(text, small)  # noqa: PLW2901
        exec(compile(snippet, page, "exec"), namespace)


def commands(page: Path) -> list[str]:
    """Return the `cliplens` commands in the blocks of a page, without comments and prose."""
    lines = "\n".join([*indented(page.read_text()), *re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.M | re.S)])
    found = re.findall(r"^\s*(?:\$ )?cliplens ([a-z].*)$", lines, re.MULTILINE)
    return [c for c in found if "..." not in c and "  " not in c.split("#")[0].strip()]


COMMANDS = [(str(p.relative_to(ROOT)), c) for p in [*PAGES, *(ROOT / "examples").glob("*.md")] for c in commands(p)]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_of_a_page_has_such_arguments(page: str, line: str) -> None:
    words = shlex.split(line.replace("&&", "#"), comments=True)
    command: Any = get_command(app)
    name: str | None = "cliplens"
    while isinstance(command, TyperGroup):
        name, command, words = command.resolve_command(Context(command), words)
    command.make_context(name, list(words))
