"""Store the results of the pass over the scored pairs, so that latents can be named again without another pass.

scores/latents.parquet            the latent table without names
scores/top-image.safetensors      the strongest samples of each latent, to make and to test names
scores/top-text.safetensors
scores/findings.json              figures, tables, notes and failed plugins of the metrics and controls
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cliplens.errors import DamagedError
from cliplens.files import atomic_write, read_json, write_json
from cliplens.records import LatentTable
from cliplens.sites import MODALITIES
from cliplens.tally import TopSamples

TABLE, FINDINGS = "latents.parquet", "findings.json"


@dataclass(frozen=True)
class Scores:
    """The findings of all metrics and controls, and the top samples of each modality that is read."""

    table: LatentTable
    tops: Sequence[TopSamples]
    figures: Mapping[str, Any]
    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    controls: Mapping[str, Any]
    notes: Sequence[str]
    """Of metrics; the notes of names come after them."""
    remarks: Sequence[str]
    """Notes that come last."""
    failed: Sequence[Mapping[str, str]]

    def save(self, folder: Path) -> None:
        """Write the files of `scores/`, each whole or not at all."""
        for top in self.tops:
            with atomic_write(folder / f"top-{top.modality}.safetensors") as partial:
                save_file({n: t.contiguous() for n, t in top.state().items()}, partial, {"top": str(top.top)})
        with atomic_write(folder / TABLE) as partial:
            self.table.save(partial)
        names = ("figures", "tables", "controls", "notes", "remarks", "failed")
        write_json(folder / FINDINGS, {name: getattr(self, name) for name in names})

    @classmethod
    def load(cls, folder: Path, top: int) -> "Scores":
        """Read what `save` wrote.

        Args:
            folder: `scores/` of a run.
            top: the most samples kept of a latent.

        Raises:
            DamagedError: a file cannot be read.
        """
        tops = []
        for modality in MODALITIES:
            path = folder / f"top-{modality}.safetensors"
            if path.exists():
                tops.append(TopSamples(modality, top=top))
                try:
                    tops[-1].load_state(load_file(path))
                except (SafetensorError, KeyError, ValueError, IndexError) as error:
                    raise _damaged(path, error) from error
        found = read_json(folder / FINDINGS)
        try:
            return cls(LatentTable.load(folder / TABLE), tops, **found)
        except TypeError as error:
            raise _damaged(folder / FINDINGS, error) from error


def _damaged(path: Path, error: Exception) -> DamagedError:
    return DamagedError(
        expected=f"scores of a run in {path}",
        found=f"{type(error).__name__}: {error}",
        fix="make them again: cliplens run --resume with the options of the run",
    )
