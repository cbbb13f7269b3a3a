"""Measure the embedded model of real drawings: retrieval, gender, skin tone, profession, artist, language.

    CLIPLENS_DATA=FOLDER python benchmarks/emoji.py [--models emoji emoji-seed1 emoji-seed2] [--resume FIGURES.jsonl]

Prints the tables of docs/emoji.md: means over the trainings with 95 % t-intervals, beside the plain contrastive twin.
`--tables` measures some tables alone.
One training has no such interval; then a share of n drawings has its Wilson interval, which covers the choice of
drawings alone. Twins are made by `python -m cliplens_hooks.training.emoji seed1` and so on, or lie in `--folders`. A
twin that was not made is left out, and named. With --resume, each table of each model is kept in a file.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import open_clip

from _bench import Bench, Estimate, bench, mean
from _emoji.figures import TABLES, Measured, measured
from cliplens.statistics import wilson_interval
from cliplens_hooks.assets import ASSETS
from cliplens_hooks.models.emoji import NAME, emoji_tokenizer, twin_folder
from cliplens_hooks.training.emoji_figures import Gallery, Judged

_COUNTED = re.compile(r"(\d+) (?:drawings|trained|unseen|neutral)")
PLAIN, LEFT_OUT = "emoji-plain", "emoji-two-artists"


def main() -> None:
    seeds = [NAME, "emoji-seed1", "emoji-seed2"]
    with bench(__file__, __doc__, models=seeds, folders="", resume="", tables=list(TABLES)) as b:
        found = {name: figures for name in (*b.args.models, PLAIN, LEFT_OUT) if (figures := figures_of(b, name))}
        models = [found[name] for name in b.args.models if name in found]
        b.note("trainings", len(models))
        missing = [name for name in (*b.args.models, PLAIN, LEFT_OUT) if name not in found]
        fewer = {t: n for t in TABLES if (n := sum(t in model for model in models)) < len(models)}
        b.note("tables of fewer trainings", ", ".join(f"{table} {n}" for table, n in fewer.items()) or "none")
        b.note("trainings that were not made", ", ".join(missing) or "none")
        tables(b, models, found.get(PLAIN), found.get(LEFT_OUT))
        b.keep("models", found)


@cache
def gallery() -> Gallery:
    return Gallery.open()


def figures_of(b: Bench, name: str) -> Measured | None:
    """Return the figures of a model, from the file of --resume where they are; None where it was not made."""
    own = Path(b.args.folders) / name if b.args.folders else twin_folder(name)
    folder = ASSETS / name if name == NAME else own
    if not (folder / "open_clip_model.safetensors").exists():
        return None
    path = Path(b.args.resume) if b.args.resume else None
    lines = path.read_text().splitlines() if path and path.exists() else []
    found: Measured = {line["table"]: line["rows"] for line in map(json.loads, lines) if line["model"] == name}
    judged: Judged | None = None
    for table in b.args.tables:
        if table in found:
            continue
        if judged is None:
            model = open_clip.create_model(f"local-dir:{folder}", precision="fp32", device="cpu").eval()
            judged = Judged(model, emoji_tokenizer(), gallery())
        found[table] = measured(judged, table)
        if path:
            with path.open("a") as file:
                file.write(json.dumps({"model": name, "table": table, "rows": found[table]}) + "\n")
    return found


def tables(b: Bench, models: list[Measured], plain: Measured | None, left_out: Measured | None) -> None:
    """Print every table."""
    heads = {"figure": "", "chance": ".2f", "kept": ".2f", "plain": ".2f"}
    b.table("English names, what is seen and said", heads)
    for title, chance, value in over(models, "what"):
        b.row(title, chance, value, of(plain, "what", title))
    b.table("English, by artist: R@10", {**heads, "trained without Fluent": ".2f"})
    for title, chance, value in over(models, "artists"):
        b.row(title, chance, value, of(plain, "artists", title), of(left_out, "artists", title))
    b.table("Neutral professions nearer to the woman's name than to the man's", heads)
    for title, chance, value in over(models, "neutral"):
        b.row(title, chance, value, of(plain, "neutral", title))
    b.table("Recovery of the true modality by a dictionary of 512 latents", heads)
    for title, chance, value in over(models, "recovery"):
        b.row(title, chance, value, of(plain, "recovery", title))
    b.table("English and Japanese alone, 500 emoji per artist: the same recovery", heads)
    for title, chance, value in over(models, "two languages"):
        b.row(f"two languages: {title}", chance, value, of(plain, "two languages", title))
    b.table("Gender removed from drawings: AUROC of probes on unseen cells", heads)
    for title, chance, value in over(models, "erased"):
        b.row(title, chance, value, of(plain, "erased", title))
    columns = ("trained concepts, R@10", "unseen concepts, R@10", "gender, unseen cells")
    b.table("By language, Noto", {"language": "", **dict.fromkeys(columns, ".2f")})
    values = {title: value for title, _, value in over(models, "languages")}
    for language in dict.fromkeys(title.split("|")[0] for title in values):
        b.row(language, *(values[f"{language}|{column}"] for column in columns))


def over(models: list[Measured], table: str) -> Iterator[tuple[str, float | None, Estimate]]:
    """Yield title, chance, and the mean over the trainings that have it, of each row of a table."""
    for title, (chance, _) in models[0][table].items():
        values = [_number(model[table][title][1]) for model in models if table in model]
        yield title, chance, mean(values) if len(values) > 1 else over_drawings(title, values[0])


def over_drawings(title: str, value: float) -> Estimate:
    """Return a share with its Wilson interval over the drawings that the title counts; none where it counts none."""
    counted = _COUNTED.search(title)
    if counted is None:
        return Estimate(value, float("nan"), float("nan"))
    low, high = wilson_interval(value, int(counted[1]))
    return Estimate(value, float(low), float(high))


def of(model: Measured | None, table: str, title: str) -> float | None:
    """Return the figure of one model, None where there is none."""
    return None if model is None or table not in model else model[table][title][1]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


if __name__ == "__main__":
    main()
