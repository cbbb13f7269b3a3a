"""`cliplens steer`: steer CLIP, a generator, a diffusers pipeline or a multimodal language model over doses."""

import os
import re
from pathlib import Path
from typing import Any

import typer

from cliplens_plugins.steering import options

app = typer.Typer(add_completion=False)


@app.command()
def steer(
    run: options.Folder = None,
    edit: options.EditOption = None,
    edits: options.EditsFile = None,
    most: options.Most = None,
    dose: options.Doses = None,
    reference: options.Reference = None,
    mix: options.Mix = False,
    error_term: options.ErrorTerm = True,
    compare: options.Compare = None,
    positions: options.PositionsOption = "all",
    prompt: options.Prompt = None,
    image: options.Picture = None,
    pairs: options.PairCount = None,
    generator: options.Generator = None,
    pipeline: options.Pipeline = None,
    config: options.Config = None,
    variant: options.Variant = None,
    dtype: options.Dtype = "float32",
    lora: options.Lora = None,
    ip_adapter: options.IpAdapter = None,
    ip_image: options.IpImage = None,
    mask: options.Mask = None,
    sae: options.Sae = None,
    site: options.SiteOption = None,
    part: options.Part = None,
    window: options.WindowOption = None,
    steps: options.Steps = 30,
    guidance: options.Guidance = None,
    negative: options.Negative = None,
    size: options.Size = None,
    scheduler: options.Scheduler = None,
    strength: options.Strength = None,
    seed: options.Seed = 0,
    seeds: options.Seeds = None,
    classes: options.Classes = None,
    measure: options.Measure = None,
    control: options.Control = False,
    judge: options.Judge = None,
    out: options.Out = None,
) -> None:
    """Steer a model by editing latents, at several doses, and measure success and side effects.

    A run: cliplens steer runs/first --edit "red->blue=+2x"

    A pipeline: cliplens steer --pipeline sd/ --sae sae/ --prompt "a ring" --edit "17=+4"

    A multimodal model: cliplens steer --pipeline llava/ --sae sae/ --image x.png --prompt "What?" --edit "17=+4"

    Prompt and reference by modality class: cliplens steer runs/first --pipeline sd/ --prompt "a ring" --reference x.png
    --mix --judge "open_clip:ViT-B-32|laion2b_s34b_b79k"

    Writes strip.png, edits.json, steering.json and steering.html.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # must be set before importing torch
    from cliplens.run import results
    from cliplens.runfolder import RunFolder
    from cliplens_plugins.steering.request import SteeringRequest
    from cliplens_plugins.steering.session import WRITTEN, do
    from cliplens_plugins.steering.sources import MOST

    request = SteeringRequest(
        run=run,
        edit=tuple(edit or ()),
        edits=edits,
        most=MOST if most is None else most,
        doses=options.read_numbers(dose or ("0,0.5,1" if mix else "0,0.5,1,2,3"), ","),
        reference=tuple(reference or ()),
        mix=mix,
        error_term=error_term,
        compare=tuple(compare or ()),
        positions=options.read_positions(positions),
        prompts=tuple(prompt or ()),
        images=tuple(image or ()),
        pairs=pairs,
        generator=generator,
        classes=tuple(c.strip() for c in (classes or "").split(",") if c.strip()),
        pipeline=pipeline,
        variant=variant,
        dtype=dtype,
        config=config,
        lora=lora,
        ip_adapter=ip_adapter,
        ip_images=tuple(ip_image or ()),
        mask=mask,
        scheduler=scheduler,
        strength=strength,
        sae=sae,
        site=site,
        part=part,
        window=None if window is None else options.read_window(window),
        steps=steps,
        guidance=guidance,
        negative=negative,
        size=None if size is None else options.read_size(size),
        seed=seed,
        seeds=() if seeds is None else options.read_whole(seeds),
        measure=measure,
        control=control,
        judge=judge,
        out=out or (Path("cliplens-steer") if run is None else RunFolder(run).steering),
    )
    if run is None:
        _tell(do(request), request.out)
        return
    with results(RunFolder.open(run), "steer", *(request.out / name for name in WRITTEN)):
        found = do(request)
    _tell(found, request.out)


def _tell(found: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for words, latents in found["latents"].items():
        listed = ", ".join(_latent(entry) for entry in latents)
        edited = _of_how_many(len(latents), found["good"][words])
        console.print(f"[bold]Latents[/] {escape(words)}{edited}: {escape(listed)}", soft_wrap=True)
    if "mixed" in found:
        _tell_mixed(console, found)
    elif found["measured"]:
        _tell_figures(console, found["measured"])
        for other in found["compared"]:
            console.print(f"\n[bold]Beside it[/] {other['edit']}", soft_wrap=True)
            _tell_figures(console, other["measured"])
    if found["aim"]:
        console.print(f"[bold]Aim[/] {found['aim']}{_success(found)}", soft_wrap=True)
    if found["verdict"]:
        console.print(f"[bold]Control[/] {escape(found['verdict'])}", soft_wrap=True)
    for note in found["notes"]:
        console.print(f"[yellow]Note[/] {note}", soft_wrap=True)
    made = out / ("strip.png" if (out / "strip.png").exists() else "steering.json")
    console.print(f"[bold]Written[/] {made}", soft_wrap=True)


def _of_how_many(edited: int, good: int) -> str:
    return f" ({edited} edited)" if edited == good else f" ({edited} edited of {good} good ones; --most sets how many)"


def _tell_figures(console: Any, rows: list[dict[str, Any]]) -> None:
    from cliplens.terminal import print_table
    from cliplens_plugins.steering.figures import as_table

    heads, lines = as_table(rows)
    print_table(heads, [[_narrow(cell) for cell in line] for line in lines], console=console)


def _narrow(text: str) -> str:
    """Return a figure with its interval as .012-.034, so that five doses fit on 80 columns."""
    figure, bracket, interval = text.partition(" (")
    return figure + bracket + re.sub(r"\b0\.", ".", interval)


def _tell_mixed(console: Any, found: dict[str, Any]) -> None:
    """Print a table of classes and alphas for each figure."""
    from cliplens.terminal import print_table
    from cliplens_plugins.steering.mixing import grids

    for title, heads, lines in grids(found["mixed"]):
        print_table(heads, lines, console=console, title=title)


def _latent(entry: dict[str, Any]) -> str:
    known = entry["evidence"] == entry["evidence"]
    figures = f", evidence {entry['evidence']:.2f}, fires on {entry['reach']:.0%}" if known else ""
    return f"{entry['latent']} ({entry['name']}{figures})"


def _success(found: dict[str, Any]) -> str:
    """Return the success of the edit in words, at the suggested dose or at the best one."""
    aim = found["aim"]
    rows = [row for row in found["measured"] if isinstance(row.get(aim), float) and row["dose"] != 0]
    if not rows:
        return ""
    suggested = found.get("suggested_dose")
    if suggested is None:
        best = max(rows, key=lambda row: row[aim])
        return f": {best[aim]:.0%} at dose {best['dose']:g}, but no dose keeps other attributes within 10 %"
    row = next(row for row in rows if row["dose"] == suggested)
    return f": {row[aim]:.0%} at the suggested dose {suggested:g}, other attributes within 10 %"
