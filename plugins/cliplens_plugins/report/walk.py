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
        rates = (
            f"It fires on {_share(table, 'fire_image', of_both)} of images and {_share(table, 'fire_text', of_both)}"
        )
        stops.append(
            Stop(
                of_both,
                "A latent of both",
                f"{rates} of captions, mostly of the same pairs (co-firing {table['cofiring'][of_both]:.2f}). Its strongest"
                " pictures and captions should show one thing: does its name say which?",
            )
        )
    if of_one is not None:
        stops.append(
            Stop(
                of_one,
                "A latent of images",
                f"It fires on {_share(table, 'fire_image', of_one)} of images and {_share(table, 'fire_text', of_one)} of"
                f" captions (score {table['mds'][of_one]:.2f}, {_interval(table, of_one)}). Do captions ever say what its"
                " pictures share? If they do, a caption latent may hold the rest: see its bridge.",
            )
        )
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


def _share(table: LatentTable, column: str, latent: int) -> str:
    return f"{100 * float(table[column][latent]):.1f} %"


def _interval(table: LatentTable, latent: int) -> str:
    return f"95 % interval {table['mds_low'][latent]:.2f} to {table['mds_high'][latent]:.2f}"
