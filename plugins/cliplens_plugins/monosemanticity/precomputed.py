"""Judge with embeddings from a file, computed by any other model."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cliplens.contracts import Judge
from cliplens.errors import CliplensError, DamagedError, InputError, MismatchError
from cliplens.records import PairedActs


class PrecomputedJudge(Judge):
    """A judge that looks up embeddings by pair id.

    Args:
        source: path of an .npz file with `ids` (strings) and `image`, `text` ([row, d]; one of them may be missing).
            Pickled objects are refused.
    """

    name: ClassVar[str] = "file"
    embeds_words: ClassVar[bool] = False

    def __init__(self, source: str = "") -> None:
        self._source = source
        self._held: tuple[dict[str, int], dict[str, Tensor]] | None = None

    def embed(
        self, images: Sequence[Image.Image] | None, captions: Sequence[str] | None, ids: Sequence[str]
    ) -> PairedActs:
        """Return the unit-norm embeddings of the pairs `ids`, of both modalities as far as the file has them.

        `images` and `captions` are ignored.

        Raises:
            InputError: the file does not exist, or lacks `ids` or both of `image` and `text`.
            MismatchError: a pair is not in the file.
        """
        place, held = self._open()
        missing = [i for i in ids if i not in place]
        if missing:
            raise MismatchError(
                expected=f"embeddings of every pair in {self._source}",
                found=f"no embedding of {missing[0]!r} and {len(missing) - 1} other pairs",
                fix="add embeddings of these pairs, with the pair ids that the report and quarantine.jsonl show",
            )
        rows = torch.tensor([place[i] for i in ids], dtype=torch.int64)
        return PairedActs(tuple(ids), *(held[side][rows] if side in held else None for side in ("image", "text")))

    def _open(self) -> tuple[dict[str, int], dict[str, Tensor]]:
        if self._held is None:
            path = Path(self._source)
            if not self._source or not path.exists():
                raise InputError(
                    expected="the path of an .npz file of embeddings",
                    found=repr(self._source),
                    fix="pass --judge file:PATH.npz",
                )
            try:
                self._held = _read(path)
            except CliplensError:
                raise
            except (ValueError, OSError, EOFError, BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
                raise DamagedError(
                    expected=f"an .npz file of arrays in {path}", found=str(error), fix="write it with numpy.savez"
                ) from error
        return self._held


def _read(path: Path) -> tuple[dict[str, int], dict[str, Tensor]]:
    with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        if "ids" not in file or not {"image", "text"} & set(file):
            raise InputError(
                expected=f"'ids' and 'image' or 'text' in {path}",
                found=f"the arrays {sorted(file)}",
                fix="write 'ids' and at least one of 'image' and 'text' with numpy.savez",
            )
        row_of = {str(i): n for n, i in enumerate(file["ids"])}
        sides = {side: torch.as_tensor(file[side]) for side in ("image", "text") if side in file}
    return row_of, {s: torch.nn.functional.normalize(rows.double()) for s, rows in sides.items()}
