"""The command line. Nothing heavy is imported before a command has set its threads."""

import os
import sys
from collections.abc import Callable
from enum import Enum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup
from typer.main import get_command

from cliplens.errors import CliplensError

COMMANDS = "cliplens.commands"
DEMO_PAIRS = 20480
DEMO_SETTINGS = {"model": "world", "pairs": f"world:{DEMO_PAIRS}", "d_sae": 256, "k": 8, "samples": 409_600}
console = Console(highlight=False)


class _PluginCommands(TyperGroup):
    """Commands of installed plugins beside our own; a plugin is imported only when its command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *sorted(e.name for e in entry_points(group=COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if not any(e.name == cmd_name for e in entry_points(group=COMMANDS)):
            return None
        from cliplens import registry

        return get_command(registry.find("commands", cmd_name).make(typer.Typer))


app = typer.Typer(
    cls=_PluginCommands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Take CLIP apart into features, say to which modality each belongs, name them, and use them.\n\n"
    "Start with [bold]cliplens demo[/]: under a minute, no network. "
    "Then [bold]cliplens run --model ViT-B-32 --pretrained laion2b_s34b_b79k --pairs captions.csv --out run/[/].",
)


class TowerChoice(str, Enum):
    both = "both"
    vision = "vision"
    text = "text"


class DtypeChoice(str, Enum):
    float32 = "float32"
    float64 = "float64"
    float16 = "float16"
    bfloat16 = "bfloat16"


class CacheDtypeChoice(str, Enum):
    float16 = "float16"
    float32 = "float32"


DATA, MODEL, DICTIONARY, MACHINE = "What to look at", "The model", "The dictionary", "The machine"

Pairs = Annotated[
    str,
    typer.Option(
        help="CSV, TSV or JSONL with images and captions, a folder of images with .txt captions, "
        "or world:N for N pairs of the embedded world.",
        rich_help_panel=DATA,
    ),
]
ImageColumn = Annotated[str | None, typer.Option(help="Column with image paths.", rich_help_panel=DATA)]
CaptionColumn = Annotated[str | None, typer.Option(help="Column with captions.", rich_help_panel=DATA)]
IdColumn = Annotated[str | None, typer.Option(help="Column with unique ids.", rich_help_panel=DATA)]
ImageRoot = Annotated[str | None, typer.Option(help="Folder the image paths are relative to.", rich_help_panel=DATA)]
MaxBad = Annotated[
    float, typer.Option(help="Largest fraction of unreadable pairs; more stops the run.", rich_help_panel=DATA)
]
HeldOut = Annotated[
    float, typer.Option(help="Fraction of pairs kept from training; scores and names come from these.", rich_help_panel=DATA)
]
Model = Annotated[
    str,
    typer.Option(
        help="open_clip name, local-dir:/path, or the embedded world / world-plain. See: cliplens models.",
        rich_help_panel=MODEL,
    ),
]
Pretrained = Annotated[
    str | None, typer.Option(help="Tag of the model (downloads), or a local weights file.", rich_help_panel=MODEL)
]
Hook = Annotated[
    str,
    typer.Option(
        help="Hook of both towers (hook_embedding) or a site of one (vision.blocks.9.hook_resid_post).",
        rich_help_panel=MODEL,
    ),
]
Tower = Annotated[TowerChoice, typer.Option(help="Towers the dictionary reads.", rich_help_panel=MODEL)]
Token = Annotated[
    str,
    typer.Option(help="Position that stands for a sample: auto, cls, eot, mean, patches, all.", rich_help_panel=MODEL),
]
Architecture = Annotated[
    str,
    typer.Option(
        help="Any SAELens training architecture: batchtopk, topk, standard, gated, jumprelu, ...",
        rich_help_panel=DICTIONARY,
    ),
]
DSae = Annotated[int | None, typer.Option(help="Latents; default four times the width.", rich_help_panel=DICTIONARY)]
K = Annotated[int | None, typer.Option(help="Latents per sample (top-k family).", rich_help_panel=DICTIONARY)]
L1 = Annotated[float | None, typer.Option(help="Sparsity coefficient (the others).", rich_help_panel=DICTIONARY)]
Samples = Annotated[
    int | None, typer.Option(help="Rows to train on; default 400 steps or 20 passes.", rich_help_panel=DICTIONARY)
]
BatchSize = Annotated[int, typer.Option(help="Rows per training step.", rich_help_panel=DICTIONARY)]
Lr = Annotated[float, typer.Option(help="Learning rate.", rich_help_panel=DICTIONARY)]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", rich_help_panel=DICTIONARY)]
Centre = Annotated[bool, typer.Option(help="Subtract each modality's mean.", rich_help_panel=DICTIONARY)]
Wandb = Annotated[str | None, typer.Option(help="Log training to this wandb project.", rich_help_panel=DICTIONARY)]
Namer = Annotated[str, typer.Option(help="Who names latents.", rich_help_panel=DICTIONARY)]
Vocabulary = Annotated[
    str | None, typer.Option(help="File with a word or phrase a line; default the captions' words.", rich_help_panel=DICTIONARY)
]
Device = Annotated[str | None, typer.Option(help="cuda, mps or cpu; default the best there is.", rich_help_panel=MACHINE)]
Dtype = Annotated[DtypeChoice, typer.Option(help="Of the model.", rich_help_panel=MACHINE)]
CacheDtype = Annotated[CacheDtypeChoice, typer.Option(help="Of activations on disk.", rich_help_panel=MACHINE)]
Threads = Annotated[int | None, typer.Option(help="CPU threads; default all cores.", rich_help_panel=MACHINE)]
Out = Annotated[Path, typer.Option(help="Folder for everything the run writes.")]
Resume = Annotated[bool, typer.Option(help="Go on with an unfinished run in --out.")]


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="Folder to write; default a new cliplens-demo.")] = None,
    model: Annotated[str, typer.Option(help="world, or world-plain, its twin without single-modality factors.")] = "world",
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """The main job on the embedded world: a tiny CLIP and pairs whose factors are known. Under a minute, no network."""
    _set_threads(threads)
    from cliplens.run import Settings, run

    folder = run(Settings(**{**DEMO_SETTINGS, "model": model, "seed": seed}), out or _new_folder(Path("cliplens-demo")))  # type: ignore[arg-type]
    _tell(folder)


@app.command(name="run")
def run_command(
    pairs: Pairs,
    out: Out,
    model: Model = "world",
    pretrained: Pretrained = None,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    id_column: IdColumn = None,
    image_root: ImageRoot = None,
    max_bad: MaxBad = 0.01,
    held_out: HeldOut = 0.2,
    hook: Hook = "hook_embedding",
    tower: Tower = TowerChoice.both,
    token: Token = "auto",
    architecture: Architecture = "batchtopk",
    d_sae: DSae = None,
    k: K = None,
    l1: L1 = None,
    samples: Samples = None,
    batch_size: BatchSize = 1024,
    lr: Lr = 1e-3,
    seed: Seed = 0,
    centre: Centre = True,
    namer: Namer = "vocabulary",
    vocabulary: Vocabulary = None,
    wandb_project: Wandb = None,
    device: Device = None,
    dtype: Dtype = DtypeChoice.float32,
    cache_dtype: CacheDtype = CacheDtypeChoice.float16,
    threads: Threads = None,
    resume: Resume = False,
) -> None:
    """Pairs -> activations -> dictionary -> modality scores -> names -> report, in one folder."""
    _do(locals(), until="report")


@app.command()
def train(
    pairs: Pairs,
    out: Out,
    model: Model = "world",
    pretrained: Pretrained = None,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    id_column: IdColumn = None,
    image_root: ImageRoot = None,
    max_bad: MaxBad = 0.01,
    held_out: HeldOut = 0.2,
    hook: Hook = "hook_embedding",
    tower: Tower = TowerChoice.both,
    token: Token = "auto",
    architecture: Architecture = "batchtopk",
    d_sae: DSae = None,
    k: K = None,
    l1: L1 = None,
    samples: Samples = None,
    batch_size: BatchSize = 1024,
    lr: Lr = 1e-3,
    seed: Seed = 0,
    centre: Centre = True,
    wandb_project: Wandb = None,
    device: Device = None,
    dtype: Dtype = DtypeChoice.float32,
    cache_dtype: CacheDtype = CacheDtypeChoice.float16,
    threads: Threads = None,
    resume: Resume = False,
) -> None:
    """Harvest activations and train a dictionary; no scores. `run --resume` with the same options goes on from there."""
    _do(locals(), until="train")


@app.command()
def score(
    pairs: Pairs,
    out: Out,
    sae: Annotated[str, typer.Option(help="Folder of a dictionary in SAELens' format; every pair is scored.")],
    model: Model = "world",
    pretrained: Pretrained = None,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    id_column: IdColumn = None,
    image_root: ImageRoot = None,
    max_bad: MaxBad = 0.01,
    hook: Hook = "hook_embedding",
    tower: Tower = TowerChoice.both,
    token: Token = "auto",
    namer: Namer = "vocabulary",
    vocabulary: Vocabulary = None,
    device: Device = None,
    dtype: Dtype = DtypeChoice.float32,
    cache_dtype: CacheDtype = CacheDtypeChoice.float16,
    threads: Threads = None,
    resume: Resume = False,
) -> None:
    """Score a dictionary made elsewhere: modality, monosemanticity, fidelity, names, report."""
    _do(locals(), until="report")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    form: Annotated[str, typer.Option(help="Which report.")] = "html",
) -> None:
    """Write the report of a run again."""
    _set_threads(None)
    from cliplens.run import write_report
    from cliplens.runfolder import RunFolder

    console.print(f"Report: {write_report(RunFolder.open(folder), [form])}")


@app.command()
def models(
    containing: Annotated[str, typer.Argument(help="Only names that contain this.")] = "",
) -> None:
    """What can be hooked, and how deep: heads (everything), blocks, or stages."""
    _set_threads(None)
    from cliplens import registry
    from cliplens.contracts import ModelSource

    table = Table("model", "vision", "hooks", "text", "hooks", "pretrained tags", title=None, box=None)
    for _, source in registry.made("towers", ModelSource):
        for card in source.models():
            if containing.casefold() in card.name.casefold():
                tags = ", ".join(card.pretrained[:3]) + (f" and {len(card.pretrained) - 3} more" if len(card.pretrained) > 3 else "")
                table.add_row(
                    card.name, card.vision_family, card.vision_level or "-", card.text_family, card.text_level or "-", tags
                )
    console.print(table)


def _do(options: dict[str, Any], until: str) -> None:
    _set_threads(options.pop("threads"))
    from cliplens.run import Settings, run

    out, resume = options.pop("out"), options.pop("resume")
    plain = {k: v.value if isinstance(v, Enum) else v for k, v in options.items()}
    _tell(run(Settings(**plain), out, resume=resume, until=until))


def _new_folder(wanted: Path) -> Path:
    number = 1
    folder = wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _set_threads(threads: int | None) -> None:
    """Must come before torch is imported: OpenMP reads its settings once, and spinning threads steal each other's time."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)


def _tell(folder: Any) -> None:
    from cliplens.runfolder import read_json

    if not folder.summary.exists():
        console.print(f"Dictionary: {folder.sae}")
        return
    found = read_json(folder.summary)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, value in _headlines(found):
        table.add_row(label, value)
    console.print(table)
    for note in read_json(folder.findings)["notes"]:
        console.print(f"[yellow]Note[/] {note}", soft_wrap=True)
    console.print(f"[bold]Report[/] {folder.report}", soft_wrap=True)


def _headlines(found: dict[str, Any]) -> list[tuple[str, str]]:
    def number(name: str) -> str:
        value = found.get(name)
        return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"

    bad = f", {found['quarantined']} quarantined" if found.get("quarantined") else ""
    classes = ", ".join(f"{number(c)} {c}" for c in ("ImgD", "TextD", "CrossD") if c in found)
    return [
        ("Pairs", f"{number('pairs')}{bad}"),
        ("Latents", f"{number('alive')} alive of {number('d_sae')}, {number('l0')} firing per sample"),
        ("Explained variance", f"{number('explained_variance')} (image {number('explained_variance_image')}, text {number('explained_variance_text')})"),
        ("Modality", classes or "one modality only"),
        ("Seconds", f"{sum(found['seconds'].values()):.1f} (" + ", ".join(f"{k} {v:.1f}" for k, v in found["seconds"].items()) + ")"),
    ]


def _guarded(command: Callable[[], Any]) -> None:
    try:
        command()
    except CliplensError as error:
        if os.environ.get("CLIPLENS_TRACEBACK"):
            raise
        Console(stderr=True, highlight=False).print(f"[red]{type(error).__name__}[/] ", end="")
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def main() -> None:
    """The `cliplens` command. Set CLIPLENS_TRACEBACK=1 to see where an error was raised."""
    _guarded(app)
