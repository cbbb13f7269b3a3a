"""Which published methods a run used, and their BibTeX, from its settings, its columns and its studies."""

import re
from collections.abc import Iterator
from importlib.resources import files

from cliplens import __version__
from cliplens.run import OpenedRun

ARXIV = re.compile(r"\b(\d{4}\.\d{5})\b")
SOFTWARE = ("transformerlens", "saelens", "openclip")
ARCHITECTURES = {
    "topk": ["2406.04093"],
    "batchtopk": ["2412.06410"],
    "matryoshka_batchtopk": ["2503.17547", "2412.06410"],
    "jumprelu": ["2407.14435"],
    "gated": ["2404.16014"],
    "standard": ["2309.08600"],
    "group_sparse": ["2601.20028"],
    "masked_group_sparse": ["2601.20028"],
    "iso_energy": ["2602.06218"],
    "two_decoders": ["2510.21323"],
}
NAMERS = {"vocabulary": ["2407.14499"], "decoder": ["2407.14499"], "wpmi": ["2204.10965"]}
STUDIES = {
    "bias": ["2306.03819", "2302.00070", "2603.19028", "2509.10809", "1911.08731", "1905.01989", "1608.07187"],
    "advice": ["2104.08718", "2502.17514"],
    "contribution": ["2212.08158"],
}
PROBING = ["2305.01610", "2409.14507", "2405.07987"]


def cited(run: OpenedRun) -> str:
    """Return BibTeX of the methods a run used, each entry after a comment that says what it stands for."""
    known = bibliography()
    reasons: dict[str, list[str]] = {}
    for key, reason in _used(run):
        if reason not in reasons.setdefault(key, []):
            reasons[key].append(reason)
    own = f"@software{{cliplens,\n  title = {{cliplens}},\n  version = {{{__version__}}}\n}}"
    parts = [f"% the software of the run\n{own}"]
    parts += [f"% {', '.join(reason)}\n{known.get(key) or _bare(key)}" for key, reason in reasons.items()]
    return "\n\n".join(parts) + "\n"


def bibliography() -> dict[str, str]:
    """Return the entries of the package: by arXiv number, or by key where there is none."""
    text = files("cliplens_plugins.cite").joinpath("assets/methods.bib").read_text(encoding="utf-8")
    found = {}
    for entry in re.split(r"\n\s*\n(?=@)", text.strip()):
        number = re.search(r"eprint = \{(.+?)\}", entry)
        key = re.match(r"@\w+\{([^,]+),", entry)
        assert key is not None
        found[number[1] if number else key[1]] = entry.strip()
    return found


def _used(run: OpenedRun) -> Iterator[tuple[str, str]]:
    asked = run.asked
    for name in SOFTWARE:
        yield name, "the software it is built on"
    if not asked.embeddings:
        yield (
            "2303.15343" if "siglip" in asked.model.casefold() else "2103.00020",
            f"the kind of the model {asked.model}",
        )
    architecture = asked.architecture.removeprefix("fast_") if asked.sae is None else run.dictionary.architecture
    for number in ARCHITECTURES.get(architecture, []):
        yield number, f"the training class {architecture}"
    if run.folder.latents.exists():
        yield "2502.14888", "the Modality Dominance Score and its classes"
        for column in run.table.schema.values():
            for number in ARXIV.findall(column.source):
                yield number, f"the column {column.name}"
        for number in NAMERS.get(asked.namer, []):
            yield number, f"names by {asked.namer}"
    for study, numbers in STUDIES.items():
        if (run.folder.studies / f"{study}.json").exists():
            for number in numbers:
                yield number, f"the study {study}"
    if (run.folder.path / "probing.json").exists():
        for number in PROBING:
            yield number, "probes"


def _bare(number: str) -> str:
    return f"@misc{{arxiv_{number.replace('.', '_')},\n  eprint = {{{number}}},\n  archivePrefix = {{arXiv}}\n}}"
