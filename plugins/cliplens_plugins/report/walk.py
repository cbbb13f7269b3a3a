"""Three latents to open first: one of both modalities, one of images, and one to doubt."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from cliplens.records import LatentTable


@dataclass(frozen=True)
class Stop:
    """A latent to open, and what to look at."""

    latent: int
    title: str
    text: str


def walk(table: LatentTable | None) -> list[Stop]:
    """Return up to three latents to open first; empty where there are no modality scores."""
    needed = ("mds", "mds_low", "mds_high", "cofiring", "fire_image", "fire_text", "alive")
    if table is None or any(name not in table for name in needed):
        return []
    alive = table["alive"].astype(bool)
    sure = table["modality_significant" if "modality_significant" in table else "modality"].astype(str)
    of_both = _best(table["cofiring"], alive & (sure == "CrossD"))
    of_one = _best(table["fire_image"], alive & (sure == "ImgD"))
    width = table["mds_high"].astype(float) - table["mds_low"].astype(float)
    named = np.array([bool(n) and n != "unnamed" for n in table["name"]]) if "name" in table else alive
    doubtful = _best(width, alive & named & (np.arange(len(table)) != of_both) & (np.arange(len(table)) != of_one))
    stops = []
    if of_both is not None:
        fires = f"It fires on {_rates(table, of_both)}, mostly of the same pairs"
        text = (
            f"{fires} (co-firing {table['cofiring'][of_both]:.2f}). Its strongest pictures and captions should show one"
            " thing: does its name say which?"
        )
        stops.append(Stop(of_both, "A latent of both", text))
    if of_one is not None:
        score = f"score {table['mds'][of_one]:.2f}, {_interval(table, of_one)}"
        text = (
            f"It fires on {_rates(table, of_one)} ({score}). Do captions ever say what its pictures share? If so, a"
            " caption latent may hold the rest: see its bridge."
        )
        stops.append(Stop(of_one, "A latent of images", text))
    if doubtful is not None:
        stops.append(
            Stop(
                doubtful,
                "A latent to doubt",
                f"It fires rarely, so its score is uncertain ({_interval(table, doubtful)}), and its name rests on few"
                " samples. Do not count such latents: sort by the column effective pairs.",
            )
        )
    return stops


def _best(values: Float[np.ndarray, " latent"], among: Bool[np.ndarray, " latent"]) -> int | None:
    known = among & ~np.isnan(values.astype(float))
    return int(np.where(known, values.astype(float), -np.inf).argmax()) if known.any() else None


def _rates(table: LatentTable, latent: int) -> str:
    image, text = (100 * float(table[column][latent]) for column in ("fire_image", "fire_text"))
    return f"{image:.1f} % of images and {text:.1f} % of captions"


def _interval(table: LatentTable, latent: int) -> str:
    return f"95 % interval {table['mds_low'][latent]:.2f} to {table['mds_high'][latent]:.2f}"
