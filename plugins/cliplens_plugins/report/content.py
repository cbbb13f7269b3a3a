"""Read the content of the page from the files of a run folder. Parts whose files are missing are left out."""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jinja2 import TemplateError

from cliplens.errors import CliplensError, DamagedError
from cliplens.exemplars import TABLE, load_exemplars, load_positions
from cliplens.files import read_json
from cliplens.pairs import read_quarantine
from cliplens.pictures import fit_of
from cliplens.records import WARNING, Exemplars, LatentTable, Positions
from cliplens.runfolder import RunFolder
from cliplens.sites import Modality
from cliplens.studies import Study, read_studies
from cliplens_plugins.report.heat import packed_heat
from cliplens_plugins.report.rounding import rounded
from cliplens_plugins.report.walk import Stop, walk

CLASSES = ("ImgD", "CrossD", "TextD", "undecided", "dead")
RULES = {
    "modality": "Fixed cuts",
    "modality_paper": "Paper's rule",
    "modality_significant": "Significant",
}
RULE_WORDS = {
    "modality": "a score below 0.2 is TextD, above 0.8 ImgD.",
    "modality_paper": "more than one standard deviation from the mean score, so it always finds some dominant latents.",
    "modality_significant": "the whole 95 % interval beyond the cut, at a false discovery rate of 5 %; else undecided.",
}
"""The meaning of each rule of the classes, by its column."""
NOT_ABOVE = ("within the control", "below the control")
"""Verdicts of a figure that is not above its control (`cliplens.run.controls`)."""
_TRUTH = ("Recovery", "Coverage")


@dataclass(frozen=True)
class Content:
    """The content of the page."""

    settings: Mapping[str, Any]
    summary: Mapping[str, Any]
    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    notes: Sequence[str]
    failed: Sequence[Mapping[str, Any]]
    quarantined: Sequence[Mapping[str, Any]]
    table: LatentTable | None
    exemplars: dict[Modality, Exemplars] = field(default_factory=dict)
    positions: Positions = field(default_factory=dict)
    """Activations of the latents at each position of the exemplars; empty for dictionaries of pooled embeddings."""
    steering: Mapping[str, Any] = field(default_factory=dict)
    """The content of steering.json, with its strip of pictures as a data URI."""
    studies: Sequence[Study] = ()
    name: str = ""
    """The name of the run folder."""

    @property
    def title(self) -> str:
        """The name of the run or, if it has none, of the model."""
        return self.name or self.model or "a run"

    @property
    def model(self) -> str:
        """The name of the model; empty where it is not known."""
        return str(self.summary.get("model") or self.settings.get("model", {}).get("name") or "")

    @property
    def sites(self) -> list[str]:
        """The sites the dictionary reads."""
        return [str(s) for s in self.summary.get("sites", [])]

    @property
    def asked(self) -> Mapping[str, Any]:
        """The settings of the run."""
        asked = self.settings.get("asked", {})
        return asked if isinstance(asked, Mapping) else {}

    @property
    def warnings(self) -> list[str]:
        """Notes on figures that cannot be trusted, shown at the top."""
        return [note for note in self.notes if note.startswith(WARNING)]

    @property
    def remarks(self) -> list[str]:
        """The other notes."""
        return [note for note in self.notes if not note.startswith(WARNING)]

    @property
    def classes(self) -> list[dict[str, Any]]:
        """The number and share of latents in each class, by each rule the table has."""
        if self.table is None:
            return []
        rules = [r for r in RULES if r in self.table]
        if not rules:
            return []
        counted = {r: Counter(str(v) for v in self.table[r]) for r in rules}
        total = max(len(self.table), 1)
        return [
            {"name": c, "counts": [(counted[r][c], counted[r][c] / total) for r in rules]}
            for c in CLASSES
            if any(counted[r][c] for r in rules) or c not in ("undecided", "dead")
        ]

    @property
    def rules(self) -> list[str]:
        """Titles of the rules in `classes`."""
        return [title for name, title in RULES.items() if self.table is not None and name in self.table]

    @property
    def rule_words(self) -> list[tuple[str, str]]:
        """Title and meaning of each rule in `classes`."""
        return [(RULES[name], words) for name, words in RULE_WORDS.items() if RULES[name] in self.rules]

    @property
    def within(self) -> set[str]:
        """The figures that were measured and are not above one of their controls."""
        controls = self.summary.get("controls")
        of_figure = controls.items() if isinstance(controls, Mapping) else ()
        return {
            figure
            for figure, by_control in of_figure
            for control, row in by_control.items()
            if control != "reseeds" and row.get("difference") is not None and not row.get("beyond", True)
        }

    @property
    def opened(self) -> list[str]:
        """Titles of the tables open at first: those about ground truth and the controls, or else the first table."""
        truth = [title for title in self.tables if title.startswith(_TRUTH)][:2]
        controls = [title for title in self.tables if title == "Controls"]
        return [*truth, *controls] or list(self.tables)[:1]

    @property
    def walk(self) -> list[Stop]:
        """Latents to open first."""
        return walk(self.table)

    def name_of(self, latent: int) -> str:
        """Return the name of a latent; empty where it has none."""
        if self.table is None or "name" not in self.table or not 0 <= latent < len(self.table):
            return ""
        name = self.table["name"][latent]
        return "" if name in (None, "unnamed") else str(name)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """The reasons why pairs could not be used, with their numbers, most frequent first."""
        return Counter(str(q.get("reason", "unknown")) for q in self.quarantined).most_common()

    def data(self, shown: Mapping[str, int]) -> dict[str, Any]:
        """Return the data of the page's script.

        Args:
            shown: pair id -> index of its picture.
        """
        if self.table is None:
            return {"latents": 0, "columns": {}, "schema": {}, "pairs": {}, "exemplars": {}, "heat": {}}
        place: dict[str, int] = {}
        pairs: dict[str, list[Any]] = {"id": [], "caption": [], "picture": []}
        listed = {m: _listed(e, place, pairs, shown) for m, e in self.exemplars.items()}
        heat = packed_heat(self.positions, self.exemplars, place, len(self.table))
        if "image" in heat:
            heat["image"]["fit"] = fit_of(str(self.settings.get("model", {}).get("preprocess", "")))
        return {
            "latents": len(self.table),
            "heat": heat,
            "columns": {name: _plain(self.table[name]) for name in self.table},
            "schema": {name: {k: v for k, v in asdict(c).items() if v} for name, c in self.table.schema.items()},
            "pairs": pairs,
            "exemplars": listed,
        }


@contextmanager
def reading(run: RunFolder) -> Iterator[None]:
    """Raise `DamagedError` where the files read inside the block do not hold what the page needs."""
    try:
        yield
    except CliplensError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, TemplateError) as error:
        raise DamagedError(
            expected=f"the files of a run in {run.path} as they were written",
            found=f"{type(error).__name__}: {error}",
            fix=f"run cliplens verify {run.path}, which names the damaged file",
        ) from error


def read_content(run: RunFolder) -> Content:
    """Read the content of the page from a run folder."""
    findings = read_json(run.findings) if run.findings.exists() else {}
    exemplars = load_exemplars(run.exemplars) if (run.exemplars / TABLE).exists() else (None, None)
    positions = load_positions(run.exemplars)
    return Content(
        settings=run.read_settings(),
        summary=read_json(run.summary) if run.summary.exists() else {},
        tables=findings.get("tables", {}),
        notes=findings.get("notes", []),
        failed=findings.get("failed", []),
        quarantined=read_quarantine(run.quarantine),
        table=LatentTable.load(run.latents) if run.latents.exists() else None,
        exemplars={e.modality: e for e in exemplars if e is not None},
        positions=positions,
        steering=_steering(run),
        studies=read_studies(run),
        name=run.path.resolve().name,
    )


def _steering(run: RunFolder) -> dict[str, Any]:
    """Read the settings, the measured rows and the strip of pictures of a steering; empty without one."""
    found = run.steering / "steering.json"
    if not found.exists():
        return {}
    content = read_json(found)
    strip = run.steering / "strip.png"
    picture = base64.b64encode(strip.read_bytes()).decode() if strip.exists() else ""
    aim, measured = content.get("aim"), content.get("measured")
    if not isinstance(aim, str | None):
        raise TypeError(f"the aim in {found.name} is {aim!r}")
    rows = measured if isinstance(measured, list) and all(isinstance(r, dict) for r in measured) else []
    return {**content, "picture": f"data:image/png;base64,{picture}" if picture else "", "measured": rows}


def _listed(
    exemplars: Exemplars, place: dict[str, int], pairs: dict[str, list[Any]], shown: Mapping[str, int]
) -> list[list[int | float | None]]:
    """Return [pair index, activation, pair index, activation, ...] for each latent, strongest first."""
    here = []
    for pair in exemplars.pairs:
        if pair.id not in place:
            place[pair.id] = len(place)
            pairs["id"].append(pair.id)
            pairs["caption"].append(pair.caption)
            pairs["picture"].append(shown.get(pair.id, -1))
        here.append(place[pair.id])
    at_of = np.array([*here, -1], dtype=np.int64)
    both = zip(at_of[exemplars.at].tolist(), rounded(exemplars.values), strict=True)
    return [[n for p, v in zip(at, values, strict=True) if p >= 0 for n in (p, v)] for at, values in both]


def _plain(values: np.ndarray) -> list[Any]:
    if values.dtype.kind in "biu":
        return list(values.tolist())
    if values.dtype.kind == "f":
        return rounded(values)
    return [rounded(np.array(v)) if isinstance(v, float) else v for v in values.tolist()]
