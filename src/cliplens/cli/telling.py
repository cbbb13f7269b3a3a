"""Print the plan and the results of a run."""

from typing import Any

from rich.console import Console
from rich.markup import escape

from cliplens.terminal import print_table, say

console = Console(highlight=False)


def tell_plan(plan: Any) -> None:
    """Print what a run would do."""
    checked = plan.checked
    console.print(f"{len(checked.pairs):,} pairs from {checked.settings.source}", soft_wrap=True, markup=False)
    console.print("Sites: " + ", ".join(str(site.site) for site in checked.harvest.sites), soft_wrap=True)
    print_table(["step", "what", "why", "writes"], list(plan.rows()), console=console)
    console.print("Nothing was written.")


def tell(folder: Any) -> None:
    """Print what a run folder holds: warnings, headline figures, notes, the path of the report."""
    from cliplens.files import read_json
    from cliplens.records import WARNING

    if not folder.summary.exists():
        if folder.sae.exists():
            console.print(f"[bold]Dictionary[/] {folder.sae}{_trained(folder)}", soft_wrap=True)
        console.print(f"[bold]Activations[/] {folder.activations}{_harvested(folder)}", soft_wrap=True)
        return
    found = read_json(folder.summary)
    notes = read_json(folder.findings)["notes"]
    for note in notes:
        if note.startswith(WARNING):
            console.print(f"[bold red]{escape(note)}[/]", soft_wrap=not console.is_terminal)
    print_table(["", ""], _headlines(found), console=console)
    for note in notes:
        if not note.startswith(WARNING):
            say(console, note, "[yellow]Note[/]")
    console.print(f"[bold]Report[/] {folder.report}", soft_wrap=True)


def _trained(folder: Any) -> str:
    """Return a summary of the dictionary."""
    from cliplens.faults import size
    from cliplens.files import read_json

    found = read_json(folder.sae / "cfg.json")
    written = sum(path.stat().st_size for path in folder.sae.rglob("*") if path.is_file())
    return f": {found['d_sae']:,} latents of width {found['d_in']:,}, {size(written)}"


def _harvested(folder: Any) -> str:
    """Return a summary of the harvested activations."""
    from cliplens.faults import size
    from cliplens.files import read_json

    found = read_json(folder.activations / "manifest.json")
    bad = f", {found['bad']} bad ones left out ({folder.quarantine})" if found["bad"] else ""
    cut = f", {found['truncated']} captions cut to the context" if found["truncated"] else ""
    return f": {found['rows']:,} pairs at {len(found['sites'])} sites, {size(found['bytes'])}{bad}{cut}"


def _classes(found: dict[str, Any]) -> str:
    """Return the number of latents of each modality class: significant ones first, then those by the fixed cuts."""
    by_cuts = ", ".join(f"{found[c]:,} {c}" for c in ("ImgD", "TextD", "CrossD") if c in found)
    if "undecided_significant" not in found:
        return by_cuts
    sure = ", ".join(f"{found[f'{c}_significant']:,} {c}" for c in ("ImgD", "TextD", "CrossD"))
    return f"{sure} significant, {found['undecided_significant']:,} undecided ({by_cuts} by fixed cuts)"


def _headlines(found: dict[str, Any]) -> list[tuple[str, str]]:
    def number(name: str) -> str:
        value = found.get(name)
        return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"

    bad = f", {found['quarantined']} quarantined" if found.get("quarantined") else ""
    classes = _classes(found)
    return [
        ("Pairs", f"{number('pairs')}{bad}"),
        ("Latents", f"{number('alive')} alive of {number('d_sae')}, {number('l0')} firing per sample"),
        (
            "Explained variance",
            " ".join(
                f"{label} {number(name)}"
                for label, name in (
                    ("both", "explained_variance"),
                    ("image", "explained_variance_image"),
                    ("text", "explained_variance_text"),
                )
                if name in found
            ),
        ),
        ("Modality", classes or "one modality only"),
        (
            "Seconds",
            f"{sum(found['seconds'].values()):.1f} ("
            + ", ".join(f"{k} {v:.1f}" for k, v in found["seconds"].items())
            + ")",
        ),
    ]
