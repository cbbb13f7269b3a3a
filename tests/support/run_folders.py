"""Run folders as a real run leaves them, made without a model: planted latents over drawn pictures and captions.

What is planted: latent k fires for one value of one factor; a third of the latents fires in one modality only. One
caption and one name hold markup that would run as a script if the report showed it as anything but text.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cliplens.exemplars import save_exemplars
from cliplens.files import write_json
from cliplens.naming import name_columns
from cliplens.records import Column, Exemplars, LatentTable, Name, Pair
from cliplens.runfolder import RunFolder
from cliplens.sites import Modality

HOSTILE = (
    "a </script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'> & \"quoted\" \u2028 caption"
)
COLOURS = {
    "red": (208, 52, 44),
    "orange": (240, 140, 30),
    "yellow": (244, 208, 63),
    "green": (60, 160, 80),
    "blue": (45, 105, 200),
    "purple": (130, 75, 175),
    "pink": (240, 130, 170),
    "grey": (120, 124, 130),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "diamond", "hexagon")
SIZES = ("small", "medium", "large")
TEXTURES = ("plain", "stripes", "dots", "checks")
FRAMES = ("a drawing of", "a photo of", "here is", "look at", "somebody drew")
TENSES = ("that was made yesterday", "that is being made", "that will be made tomorrow")
SHARED, IMAGE_ONLY, TEXT_ONLY = ("colour", "shape", "size"), ("texture",), ("frame", "tense")
_VALUES = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": SIZES,
    "texture": TEXTURES,
    "frame": FRAMES,
    "tense": TENSES,
}


@dataclass(frozen=True)
class _World:
    pairs: list[Pair]
    factors: dict[str, np.ndarray]


def make_run_folder(
    path: Path, *, latents: int = 96, pairs: int = 400, top: int = 20, side: int = 48, seed: int = 0, truth: bool = True
) -> RunFolder:
    """A finished run without its report."""
    rng = np.random.default_rng(seed)
    world = _world(rng, pairs, side)
    planted = _planted(rng, latents)
    codes = {m: _codes(rng, world, planted, m) for m in ("image", "text")}
    run = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    exemplars = {m: _exemplars(m, codes[m], world.pairs, top) for m in ("image", "text")}
    save_exemplars(run.exemplars, exemplars["image"], exemplars["text"])
    table = _table(rng, codes, planted)
    table.save(run.latents)
    _write_rest(run, table, pairs, latents, truth)
    return run


def _world(rng: np.random.Generator, n: int, side: int) -> _World:
    factors = {name: rng.integers(0, len(values), n) for name, values in _VALUES.items()}
    pairs = []
    for i in range(n):
        at = {name: _VALUES[name][values[i]] for name, values in factors.items()}
        caption = f"{at['frame']} a {at['size']} {at['colour']} {at['shape']} {at['tense']}"
        pairs.append(Pair(f"pair/{i:05d}", _drawing(rng, at, side), HOSTILE if i == 7 else caption))
    return _World(pairs, factors)


def _drawing(rng: np.random.Generator, at: dict[str, str], side: int) -> Image.Image:
    scale = 4
    big = side * scale
    image = Image.new("RGB", (big, big), (246, 244, 238))
    draw = ImageDraw.Draw(image)
    ink = (222, 218, 206)
    for step in range(0, big, 6 * scale):
        if at["texture"] in ("stripes", "checks"):
            draw.rectangle([step, 0, step + 2 * scale, big], fill=ink)
        if at["texture"] == "checks":
            draw.rectangle([0, step, big, step + 2 * scale], fill=ink)
        if at["texture"] == "dots":
            for other in range(0, big, 6 * scale):
                draw.ellipse([step, other, step + 2 * scale, other + 2 * scale], fill=ink)
    r = big * (0.16, 0.25, 0.36)[SIZES.index(at["size"])]
    x, y = rng.uniform(r, big - r, 2)
    corners = {
        "circle": 60,
        "square": 4,
        "triangle": 3,
        "star": 10,
        "cross": 12,
        "heart": 5,
        "diamond": 4,
        "hexagon": 6,
    }
    n = corners[at["shape"]]
    turn = np.pi / 4 if at["shape"] == "square" else -np.pi / 2
    angles = turn + 2 * np.pi * np.arange(n) / n
    radii = np.where(np.arange(n) % 2, 0.42, 1.0) if at["shape"] in ("star", "cross") else np.ones(n)
    points = [(x + r * q * np.cos(a), y + r * q * np.sin(a)) for a, q in zip(angles, radii, strict=True)]
    draw.polygon(points, fill=COLOURS[at["colour"]])
    return image.resize((side, side), Image.Resampling.LANCZOS)


def _planted(rng: np.random.Generator, latents: int) -> list[tuple[str, int, str]]:
    """Per latent: factor, value, and where it fires (image, text, both, never)."""
    planted = []
    for k in range(latents):
        kind = ("both", "both", "image", "text", "both", "split")[k % 6]
        names = {"both": SHARED, "split": SHARED, "image": (*IMAGE_ONLY, *SHARED[:1]), "text": TEXT_ONLY}[kind]
        factor = names[int(rng.integers(len(names)))]
        where = ("image", "text")[k % 2] if kind == "split" else kind
        planted.append((factor, int(rng.integers(len(_VALUES[factor]))), "never" if k % 31 == 30 else where))
    return planted


def _codes(
    rng: np.random.Generator, world: _World, planted: list[tuple[str, int, str]], modality: Modality
) -> np.ndarray:
    codes = np.zeros((len(world.pairs), len(planted)))
    for k, (factor, value, where) in enumerate(planted):
        strength = {"both": rng.uniform(0.6, 1.2), "never": 0.0}.get(where, 1.0 if where == modality else 0.02)
        fires = (world.factors[factor] == value) & (rng.uniform(size=len(codes)) < 0.9)
        codes[:, k] = (
            strength * fires * rng.gamma(6, 0.25, len(codes)) * (rng.uniform(size=len(codes)) < min(1, 3 * strength))
        )
    return codes


def _exemplars(modality: Modality, codes: np.ndarray, pairs: list[Pair], top: int) -> Exemplars:
    order = np.argsort(-codes, axis=0, kind="stable")[:top].T
    values = np.take_along_axis(codes.T, order, axis=1)
    return Exemplars(modality, tuple(pairs), np.where(values > 0, order, -1).astype(np.int64), values)


def _table(
    rng: np.random.Generator, codes: dict[Modality, np.ndarray], planted: list[tuple[str, int, str]]
) -> LatentTable:
    image, text = codes["image"], codes["text"]
    either = (image + text) > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(either, image / (image + text), np.nan)
        alive = either.any(axis=0)
        mds = np.array([np.nanmean(r) if a else np.nan for r, a in zip(ratio.T, alive, strict=True)])
        energy = (image**2).mean(0) / ((image**2).mean(0) + (text**2).mean(0))
    spread = 1.2 / np.sqrt(np.maximum(either.sum(0), 1))
    fixed = np.select([~alive, mds < 0.2, mds > 0.8], ["dead", "TextD", "ImgD"], "CrossD").astype(object)
    mu, sigma = np.nanmean(mds), np.nanstd(mds)
    paper = np.select([~alive, mds < mu - sigma, mds > mu + sigma], ["dead", "TextD", "ImgD"], "CrossD").astype(object)
    n = len(planted)
    named = [_VALUES[f][v] for f, v, _ in planted]
    from_image = [
        Name(w, s) if p[2] in ("both", "image") else Name(None, np.nan)
        for w, s, p in zip(named, rng.uniform(0.7, 0.99, n), planted, strict=True)
    ]
    other = [named[int(j)] if j % 5 == 0 else w for w, j in zip(named, rng.integers(0, n, n), strict=True)]
    from_text = [
        Name(w, s) if p[2] in ("both", "text") else Name(None, np.nan)
        for w, s, p in zip(other, rng.uniform(0.7, 0.99, n), planted, strict=True)
    ]
    from_text[3] = Name("<script>window.pwned = 3</script>", 0.995)
    names = name_columns(from_image, from_text, alive=alive, by="vocabulary")
    columns = {
        "latent": np.arange(n),
        "alive": alive,
        "fire_image": (image > 0).mean(0),
        "fire_text": (text > 0).mean(0),
        "mds": mds,
        "mds_low": np.clip(mds - spread, 0, 1),
        "mds_high": np.clip(mds + spread, 0, 1),
        "energy": energy,
        "cofiring": np.where(alive, rng.uniform(-0.1, 0.9, n), np.nan),
        "modality": fixed,
        "modality_paper": paper,
        "ms_image": np.where((image > 0).any(0), rng.beta(6, 3, n), np.nan),
        "ms_text": np.where((text > 0).any(0), rng.beta(5, 3, n), np.nan),
        **names.columns,
    }
    schema = [
        Column(
            "mds",
            "Mean share of the image in a pair's activation.",
            range="[0, 1]",
            nan="never fires",
            source="Yan et al., arXiv 2502.14888",
        ),
        Column("fire_image", "Share of images the latent fires on.", unit="fraction", range="[0, 1]"),
        Column(
            "ms_image",
            "MonoSemanticity over images by the judge 'clip'.",
            range="[-1, 1]",
            nan="fewer than two samples",
            source="Pach et al., arXiv 2504.02821",
        ),
        *names.schema,
    ]
    return LatentTable(columns).with_columns({}, schema)


def _write_rest(run: RunFolder, table: LatentTable, pairs: int, latents: int, truth: bool) -> None:
    counts = {c: int((table["modality"] == c).sum()) for c in ("ImgD", "TextD", "CrossD")}
    paper = {f"{c}_paper": int((table["modality_paper"] == c).sum()) for c in counts}
    alive = int(table["alive"].sum())
    write_json(
        run.summary,
        {
            "pairs": pairs,
            "quarantined": 3,
            "truncated": 12,
            "model": "world",
            "sites": ["vision.hook_embedding", "text.hook_embedding"],
            "d_in": 64,
            "d_sae": latents,
            "alive": alive,
            "dead": latents - alive,
            "l0": 8.07,
            "explained_variance": 0.8912,
            "explained_variance_image": 0.912,
            "explained_variance_text": 0.868,
            **counts,
            **paper,
            "named": int((table["name"] != "unnamed").sum()),
            "seconds": {"load": 0.9, "harvest": 7.2, "train": 5.1, "score": 1.4, "name": 0.3},
        },
    )
    run.write_settings(
        {
            "asked": {
                "pairs": "world:20480",
                "model": "world",
                "hook": "hook_embedding",
                "architecture": "batchtopk",
                "namer": "vocabulary",
                "k": 8,
                "seed": 0,
                "lr": 1e-3,
            },
            "model": {"name": "world", "weights_sha256": "0f" * 32, "preprocess": "Compose(...)"},
            "pairs": {"name": "world:20480", "sha256": "ab" * 32, "count": pairs + 3},
            "versions": {"cliplens": "0.1.0", "torch": "2.9", "sae-lens": "6.54.12"},
        }
    )
    tables = {
        "How well each score tells shared from single-modality latents": [
            {"variant": v, "accuracy (fixed cuts)": a, "accuracy (paper)": b, "AUROC": c}
            for v, a, b, c in [
                ("pairs (MDS)", 0.985, 0.974, 0.993),
                ("energy", 0.97, 0.952, 0.995),
                ("firing", 0.96, 0.941, 0.984),
                ("co-firing", None, None, 0.998),
                ("eps", 0.36, 0.41, 0.88),
            ]
        ],
        "Coverage of the world's factors": [
            {"sharing": s, "values": n, "with a latent": w, "split": x}
            for s, n, w, x in [("shared", 24, 22, 0.04), ("image only", 19, 9, None), ("text only", 20, 10, None)]
        ],
    }
    write_json(
        run.findings,
        {
            "tables": tables if truth else {},
            "notes": ["12 captions were longer than the model's context and were cut, as open_clip does."],
            "failed": [{"plugin": "fancy", "distribution": "cliplens-fancy", "error": "ValueError: <b>no</b>"}],
        },
    )
    bad = [
        {"id": f"pair/{i:05d}", "image": f"images/{i}.png", "caption": HOSTILE, "reason": "unreadable image: truncated"}
        for i in (3, 9, 27)
    ]
    run.quarantine.write_text("\n".join(json.dumps(b) for b in bad) + "\n", encoding="utf-8")
