"""Steer with an edit given in words: `cliplens.steer(target, run, "red->blue", dose=2)`."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cliplens.edits import LatentSteering
from cliplens.run import OpenedRun
from cliplens.runfolder import RunFolder
from cliplens.sites import Modality, Site
from cliplens_plugins.steering.context import find_ports, steer
from cliplens_plugins.steering.parsing import parse_edits
from cliplens_plugins.steering.ports.denoising import Window
from cliplens_plugins.steering.ports.movement import Movement
from cliplens_plugins.steering.sources import MOST, Run
from cliplens_plugins.steering.through_projection import ThroughProjection, projection_for


def steer_by_words(
    target: Any,
    run: Path | str | OpenedRun,
    edit: str,
    *,
    dose: float | int = 1.0,
    site: Site | str | None = None,
    part: str | None = None,
    window: Window | None = None,
    most: int | None = None,
) -> AbstractContextManager[Movement]:
    """Return a context that steers a target with the dictionary and the names of a run. See `cliplens.steer`."""
    opened = Run(run.folder if isinstance(run, OpenedRun) else RunFolder.open(run))
    where: dict[str, Any] = {"site": site, "part": part, "window": window}
    latents = LatentSteering(opened.dictionary, [])
    sites = latents.sites if site is None else (Site.parse(site) if isinstance(site, str) else site,)
    through = projection_for(target, sites, opened)
    modality: Modality = "text" if through else find_ports(target, latents, **where)[0].site.modality
    edits = parse_edits(
        edit,
        lambda words: opened.group(words, modality, MOST if most is None else most),
        table=opened.table,
        level=opened.level(modality),
    )
    steering = LatentSteering(opened.dictionary, edits, dose=float(dose))
    if through is not None:
        return steer(target, ThroughProjection(steering, *through), part=part, window=window)
    return steer(target, steering, **where)
