"""Reading pictures: an `AttributeReader` that knows the attributes, or an independent two-tower model and a phrase."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch.nn import functional as F

from cliplens import api, registry
from cliplens.contracts import AttributeReader
from cliplens.errors import InputError, unknown_name
from cliplens_plugins.steering.effects import effect


def attributes(
    reader: str, wanted: str, doses: Sequence[float], columns: Sequence[Sequence[Image.Image]]
) -> list[dict[str, Any]]:
    """Success and side effects per dose, against the pictures at dose 0.

    Args:
        reader: name in the entry-point group `cliplens.readers`.
        wanted: "attribute=value".
        doses: one per column, 0 among them.
        columns: pictures per dose, the same samples in each.

    Raises:
        UnknownNameError: no such attribute or value.
        InputError: not of the form attribute=value.
    """
    judge = registry.find("readers", reader).make(AttributeReader)
    name, _, value = wanted.partition("=")
    if not value:
        raise InputError(
            expected="--measure attribute=value, or a phrase together with --judge",
            found=repr(wanted),
            fix="give colour=blue",
        )
    if name not in judge.values:
        raise unknown_name("attribute", name, judge.values)
    if value not in judge.values[name]:
        raise unknown_name(f"value of {name}", value, judge.values[name])
    target = judge.values[name].index(value)
    readings = [judge.read(pictures) for pictures in columns]
    before = readings[list(doses).index(0.0)]
    rows = []
    for dose, after in zip(doses, readings, strict=True):
        found = effect(before, after, name, target, dose=dose)
        low, high = found.success.low, found.success.high
        changed = {f"{other} changed": share.share for other, share in found.changed.items()}
        rows.append({wanted: found.success.share, "95 %": f"{low:.2f}-{high:.2f}", **changed})
    return rows


@torch.no_grad()
def similarities(
    model: str, phrase: str, prompts: Sequence[str], columns: Sequence[Sequence[Image.Image]]
) -> list[dict[str, Any]]:
    """Mean cosine of the pictures with a phrase (what was wanted) and with their own prompts (what was to stay)."""
    judge = api.load(model)
    assert judge.tokenizer is not None
    assert judge.preprocess is not None
    texts = F.normalize(judge.encode_text(judge.tokenizer([phrase, *prompts])), dim=-1)
    rows = []
    for pictures in columns:
        images = F.normalize(judge.encode_image(torch.stack([judge.preprocess(p) for p in pictures])), dim=-1)
        row: dict[str, Any] = {f"cosine with {phrase!r}": float((images @ texts[0]).mean())}
        if prompts:
            row["cosine with the prompt"] = float((images * texts[1:]).sum(-1).mean())
        rows.append(row)
    return rows
