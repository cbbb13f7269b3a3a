"""Print the plan and the results of a run."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

console = Console(highlight=False)


def tell_plan(plan: Any) -> None:
    """Print what a run would do."""
    checked = plan.checked
    console.print(f"{len(checked.pairs):,} pairs from {checked.settings.source}", soft_wrap=True, markup=False)
    console.print("Sites: " + ", ".join(str(site.site) for site in checked.harvest.sites), soft_wrap=True)
    table = Table("step", "what", "why", "writes", box=None)
    for row in plan.rows():
        table.add_row(*row)
    console.print(table)
    console.print("Nothing was written.")


def tell(folder: Any) -> None:
    """Print what a run folder holds: warnings, headline figures, notes, the path of the report."""
    from cliplens.files import read_json
    from cliplens.records import WARNING

    if not folder.summary.exists():
        made = folder.sae if folder.sae.exists() else folder.activations
        console.print(f"[bold]{made.name.capitalize()}[/] {made}{_harvested(folder)}", soft_wrap=True)
        return
    found = read_json(folder.summary)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, value in _headlines(found):
        table.add_row(label, value)
    notes = read_json(folder.findings)["notes"]
    for note in notes:
        if note.startswith(WARNING):
            console.print(f"[bold red]{escape(note)}[/]", soft_wrap=True)
    console.print(table)
    for note in notes:
        if not note.startswith(WARNING):
            console.print(f"[yellow]Note[/] {escape(note)}", soft_wrap=True)
    console.print(f"[bold]Report[/] {folder.report}", soft_wrap=True)


def _harvested(folder: Any) -> str:
    """Return a summary of the harvested activations."""
    from cliplens.files import read_json

    found = read_json(folder.activations / "manifest.json")
    bad = f", {found['bad']} bad ones left out ({folder.quarantine})" if found["bad"] else ""
    cut = f", {found['truncated']} captions cut to the context" if found["truncated"] else ""
    return f": {found['rows']:,} pairs at {len(found['sites'])} sites, {found['bytes'] / 1e6:,.1f} MB{bad}{cut}"


def _headlines(found: dict[str, Any]) -> list[tuple[str, str]]:
    def number(name: str) -> str:
        value = found.get(name)
        return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"

    bad = f", {found['quarantined']} quarantined" if found.get("quarantined") else ""
    classes = ", ".join(f"{number(c)} {c}" for c in ("ImgD", "TextD", "CrossD") if c in found)
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
