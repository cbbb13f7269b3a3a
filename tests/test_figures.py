"""The figures of README are those the benchmark scripts stored in benchmarks/results/."""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def _loaded(path: Path) -> ModuleType:
    """Import a file of benchmarks/, which is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables_of_docs = _loaded(ROOT / "benchmarks" / "_tables.py")
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text()
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*\.?\d*|\.\d+")


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yield head and rows of every Markdown table."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
        yield rows[0], rows[2:]


def table(first: str) -> list[dict[str, str]]:
    """Return the rows of README's table whose first head is `first`."""
    (found,) = (rows for head, rows in tables(README) if head[0] == first)
    (head,) = (head for head, _ in tables(README) if head[0] == first)
    return [dict(zip(head, row, strict=True)) for row in found]


def stored(name: str, title: str) -> list[dict[str, Any]]:
    """Return the rows of a table of a result file, found by the beginning of its title."""
    content = json.loads((RESULTS / f"{name}.json").read_text())
    (found,) = (t for t in content["tables"] if t["title"].startswith(title))
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def numbers_in(text: str) -> list[str]:
    """Return the numbers of a cell as they are written, without the commas of thousands."""
    return [number.replace(",", "").lstrip("0") or "0" for number in NUMBER.findall(text)]


def values(content: Any) -> Iterator[float]:
    """Yield every number of a result."""
    if isinstance(content, bool):
        return
    if isinstance(content, int | float):
        yield float(content)
    elif isinstance(content, str):
        yield from (float(n.replace(",", "")) for n in NUMBER.findall(content))
    elif isinstance(content, list | dict):
        for item in content.values() if isinstance(content, dict) else content:
            yield from values(item)


def rounds_to(written: str, value: float) -> bool:
    """Return whether a value prints as it is written; half a unit of the last digit may go either way."""
    digits = len(written.partition(".")[2])
    return abs(float(written) - value) <= 0.5 * 10**-digits + 1e-9


@pytest.mark.parametrize("row", table("what"), ids=lambda row: row["script"])
def test_every_cost_is_one_a_script_stored(row: dict[str, str]) -> None:
    script = row["script"].strip("`").removesuffix(".py")
    files = [json.loads(path.read_text()) for path in RESULTS.glob(f"{script}*.json")]
    known = [value for content in files for value in values(content["tables"])]
    written = numbers_in(row["ratio"])
    assert written
    assert [number for number in written if not any(rounds_to(number, value) for value in known)] == []


def test_costs_that_were_not_rerun_say_so() -> None:
    names = {row["script"].strip("`").removesuffix(".py") for row in table("what")}
    contents = [json.loads((RESULTS / f"{name}.json").read_text()) for name in names]
    commits = {content["commit"] for content in contents if "transcribed" in content}
    assert all(str(commit) in README for commit in commits)


METHODS = {
    "one latent replaced": "latents: own out, target in",
    "eight latents (difference of mean codes)": "latents: mean codes of 8",
    "centroid swap": "centroid swap",
    "random direction": "random direction, equal norm",
}


@pytest.mark.parametrize("row", table("attribute"), ids=lambda row: row["attribute"])
def test_steering_is_as_stored(row: dict[str, str]) -> None:
    found = stored("steering", "image embeddings, read by pictures")
    for head, method in METHODS.items():
        (line,) = (r for r in found if (r["attribute"], r["method"]) == (row["attribute"], method))
        success, worst = numbers_in(row[head])
        assert rounds_to(success, line["success"])
        assert rounds_to(worst, line["worst side effect"])


def test_what_mixing_transfers_is_as_stored() -> None:
    """The sentence on mixing gives the smallest and largest share over three image-only and five shared factors."""
    (told,) = re.findall(r"If the latents of a class are taken[\s\S]*?\n\n", README)
    rows = {row["class"]: row for row in stored("steering", "Captions with latents of a reference picture")}
    only = ("texture", "tint", "light")
    shared = ("shape", "colour", "size", "count", "fill")

    def taken(kind: str, factors: tuple[str, ...]) -> list[float]:
        return [rows[kind][f"{factor}: as the reference"] for factor in factors]

    random = "random, as many as ImgD"
    ends = [*taken("ImgD", only), max(taken("ImgD", shared)), *taken("CrossD", shared)]
    expected = [min(ends[:3]), max(ends[:3]), ends[3], min(ends[4:]), max(ends[4:])]
    expected += [end(taken(random, factors)) for factors in (only, shared) for end in (min, max)]
    written = numbers_in(told)
    assert len(written) == len(expected)
    assert [w for w, e in zip(written, expected, strict=True) if not rounds_to(w, e)] == []
    assert max(taken("TextD", shared)) == 0


def test_the_demos_edit_is_as_stored() -> None:
    """Every share of README's paragraph on the demo's edit is in the table of the script it names."""
    (told,) = (part for part in README.split("\n\n") if "`benchmarks/steering_by_words.py`" in part)
    rows = [row for row in stored("steering_by_words", "Red pictures under") if row["dose"] in (0.5, 1, 2)]
    columns = ("blue by the network", "blue by the palette", "worst side effect")
    known = [100 * row[column]["value"] for row in rows for column in columns]
    shares = re.findall(r"(\d+) %", told)
    assert len(shares) == 7
    assert [share for share in shares if not any(rounds_to(share, value) for value in known)] == []


def test_intervals_that_are_wider_on_one_side_show_both_limits() -> None:
    assert tables_of_docs.cell({"value": 0.817, "low": 0.733, "high": 0.884}) == "0.817 (0.733 to 0.884)"
    assert tables_of_docs.cell({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.500 ± 0.250"
    assert tables_of_docs.cell({"value": 75.25, "low": None, "high": None}) == "75.2"


def test_tables_of_the_docs_are_the_stored_ones() -> None:
    """`python benchmarks/_tables.py` writes them."""
    assert tables_of_docs.pages()
    for page in tables_of_docs.pages():
        text = page.read_text()
        assert tables_of_docs.filled(text) == text, f"{page.name}: run python benchmarks/_tables.py"


def test_every_result_file_says_where_it_comes_from() -> None:
    for path in RESULTS.glob("*.json"):
        content = json.loads(path.read_text())
        assert content["name"] == path.stem or path.stem.startswith(content["name"]), path.name
        assert content["command"].startswith("python benchmarks/"), path.name
        assert (ROOT / content["command"].split()[1]).exists(), path.name
        assert {"machine", "versions", "tables"} <= set(content), path.name
        assert "transcribed" in content or content["date"], path.name


MODELS = {"default model": "default", "split-prone variant": "split-prone", "plain InfoNCE twin": "plain twin"}
SCORES = {
    "MDS, silent pairs skipped (default)": "pairs",
    "MDS, epsilon in the denominator": "eps",
    "energy ratio": "energy",
    "co-firing": "cofiring",
}


@pytest.mark.parametrize("row", table("score"), ids=lambda row: row["score"])
def test_the_recovery_of_the_truth_is_as_stored(row: dict[str, str]) -> None:
    found = stored("modality_ground_truth", "Embedded world")
    for head, model in MODELS.items():
        (line,) = (r for r in found if (r["data"].split(",")[0], r["score"]) == (model, SCORES[row["score"]]))
        accuracy, separation = line["accuracy, fixed cuts"], line["AUROC, shared against single"]
        expected = []
        if accuracy["value"] is not None:
            expected.append(accuracy["value"])
            expected += [accuracy["high"] - accuracy["value"]] if "±" in row[head] else []
        expected += [] if separation["value"] is None else [separation["value"]]
        written = numbers_in(row[head])
        assert len(written) == len(expected), (head, row[head], expected)
        assert all(rounds_to(a, b) for a, b in zip(written, expected, strict=True)), (head, row[head], expected)


@pytest.mark.parametrize("row", table("model"), ids=lambda row: row["model"])
def test_latents_without_a_label_are_counted_as_stored(row: dict[str, str]) -> None:
    found = stored("modality_ground_truth", "Classes by MDS")
    _, labelled, classes, unlabelled, other_classes = row.values()
    for group, number, shares in (("labelled", labelled, classes), ("unlabelled", unlabelled, other_classes)):
        (line,) = (r for r in found if (r["model"], r["latents"]) == (MODELS.get(row["model"], row["model"]), group))
        assert rounds_to(number, line["number"]["value"])
        for written, name in zip(numbers_in(shares), ("ImgD", "TextD", "CrossD"), strict=True):
            assert rounds_to(written, line[name]["value"])


CONTROLS = {
    "trained": "trained",
    "trained, labels shuffled": "trained, labels shuffled",
    "untrained, random": "untrained dictionary",
    "decoder frozen at random": "frozen decoder",
    "trained, on the model with shuffled weights": "untrained model",
}
FIGURES = {
    "explained variance": "explained variance",
    "latents with a label": "labelled",
    "MDS, accuracy": "accuracy, MDS",
    "MDS, AUROC": "AUROC, MDS",
    "co-firing, AUROC": "AUROC, co-firing",
}


@pytest.mark.parametrize("row", table("dictionary"), ids=lambda row: row["dictionary"])
def test_the_controls_of_the_recovery_are_as_stored(row: dict[str, str]) -> None:
    found = stored("modality_ground_truth-controls", "Controls of the recovery")
    (line,) = (r for r in found if (r["model"], r["dictionary"]) == ("default", CONTROLS[row["dictionary"]]))
    for head, column in FIGURES.items():
        value, half = numbers_in(row[head])
        assert rounds_to(value, line[column]["value"]), head
        assert rounds_to(half, line[column]["high"] - line[column]["value"]), head


OTHER_CONTROLS = {"trained": "trained", "decoder frozen at random": "decoder frozen", "untrained, random": "untrained"}


@pytest.mark.parametrize("row", table("figure"), ids=lambda row: row["figure"])
def test_figures_beside_random_dictionaries_are_as_stored(row: dict[str, str]) -> None:
    (line,) = (r for r in stored("controls", "Figures beside") if r["figure"] == row["figure"])
    for head, column in OTHER_CONTROLS.items():
        value, half = numbers_in(row[head])
        assert rounds_to(value, line[column]["value"]), head
        assert rounds_to(half, line[column]["high"] - line[column]["value"]), head


def test_accuracy_by_label_cut_and_class_cuts_is_as_stored() -> None:
    (paragraph,) = re.findall(r"The accuracy depends on the minimum correlation[\s\S]*?\n\n", README)
    known = [value for row in stored("modality_ground_truth", "Accuracy by label cut") for value in values(row)]
    written = numbers_in(paragraph)
    assert len(written) > 10
    assert [number for number in written if not any(rounds_to(number, value) for value in known)] == []


def test_single_latents_of_the_twin_are_as_stored() -> None:
    (paragraph,) = re.findall(r"The twin has only shared factors[\s\S]*?\n\n", README)
    rows = stored("modality_ground_truth", "Classes by MDS")
    labelled, unlabelled = (
        next(row for row in rows if (row["model"], row["latents"]) == ("plain twin", group))
        for group in ("labelled", "unlabelled")
    )
    image, text = (unlabelled[name]["value"] for name in ("ImgD", "TextD"))
    percent, *shares = numbers_in(paragraph)
    assert rounds_to(percent, 100 * (image + text))
    assert [rounds_to(a, b) for a, b in zip(shares, (image, text), strict=True)] == [True, True]
    assert labelled["CrossD"]["value"] == 1


def test_what_lowers_and_raises_the_recovery_is_as_stored() -> None:
    (paragraph,) = re.findall(r"MDS is not better than a simple[\s\S]*?\n\n", README)
    planted = {(r["data"], r["score"]): r for r in stored("modality_ground_truth", "Planted codes")}
    expected = [
        planted[data, score]["accuracy, fixed cuts"]["value"]
        for data in ("noise", "unequal norms")
        for score in ("pairs", "energy")
    ]
    rows = {(r["model"], r["training class"]): r for r in stored("modality_ground_truth", "Training classes")}
    before, after = (rows["split-prone", c] for c in ("batchtopk", "iso_energy, align_coefficient=0.002"))
    expected += [row[name]["value"] for name in ("split fraction", "accuracy, MDS") for row in (before, after)]
    expected += [before["explained variance"]["value"] - after["explained variance"]["value"]]
    written = numbers_in(paragraph)
    assert len(written) == len(expected)
    assert [w for w, e in zip(written, expected, strict=True) if not rounds_to(w, e)] == []


def test_the_figures_of_reliability_are_as_stored() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    for path in RESULTS.glob("reliability*.json"):
        for found in json.loads(path.read_text())["tables"]:
            rows = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in found["rows"]]
            assert [row for row in rows if row not in page] == [], path.name


PAGES = ("comparison", "peers")


def pages_tables(name: str) -> list[tuple[dict[str, Any], list[list[str]]]]:
    """Return each stored table of a result whose heads a page has, with the rows of the page."""
    page = (ROOT / "docs" / f"{name}.md").read_text()
    shown = list(tables(page))
    content = json.loads((RESULTS / f"{name}.json").read_text())
    return [(t, rows) for t in content["tables"] for head, rows in shown if head == t["columns"]]


def agrees(written: str, value: Any) -> bool:
    """Return whether a cell of a page shows a stored value, an interval included."""
    if isinstance(value, dict):
        known = [v for v in (value["value"], value["low"], value["high"]) if v is not None]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        known = [value]
    else:
        return written.replace("\\|", "|") == str(value)
    numbers = re.findall(r"-?\d[\d,]*\.?\d*(?:e[-+]?\d+)?", written)
    return len(numbers) == len(known) and all(
        shown_as(n.replace(",", ""), v) for n, v in zip(numbers, known, strict=True)
    )


def shown_as(written: str, value: float) -> bool:
    """Return whether a value prints as it is written, with an exponent or without."""
    if "e" in written:
        return f"{value:.{len(written.partition('e')[0].partition('.')[2])}e}" == written
    return rounds_to(written, value) if float(written) >= 0 else rounds_to(written[1:], -value)


@pytest.mark.parametrize("name", PAGES)
def test_every_table_of_a_page_is_as_stored(name: str) -> None:
    found = pages_tables(name)
    stored_tables = json.loads((RESULTS / f"{name}.json").read_text())["tables"]
    titles = {t["title"] for t in stored_tables}
    assert {t["title"] for t, _ in found} == titles
    for stored_table in {t["title"]: t for t, _ in found}.values():
        candidates = [rows for t, rows in found if t["title"] == stored_table["title"]]
        assert any(
            len(rows) == len(stored_table["rows"])
            and all(all(map(agrees, a, b)) for a, b in zip(rows, stored_table["rows"], strict=True))
            for rows in candidates
        ), stored_table["title"]
