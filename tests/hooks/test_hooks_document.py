"""docs/hooks.md names every hook there is, and no other."""

import re
from pathlib import Path

import cliplens
from support.families import reduced_model

DOCUMENT = Path(__file__).parents[2] / "docs" / "hooks.md"
NAMES = ("coca_ViT-B-32", "ViT-B-32", "EVA02-B-16", "EVA02-L-14", "ViT-B-16-SigLIP", "RN50", "roberta-ViT-B-32")


def test_the_table_of_hooks_is_the_codes() -> None:
    table = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    written = {name for line in table for name in re.findall(r"`([\w.]*hook_\w+)`", line.split("|")[1])}
    found = set()
    for name in NAMES:
        for hook in cliplens.wrap(reduced_model(name)).hook_dict:
            bare = hook.removeprefix("vision.").removeprefix("text.")
            found.add(re.sub(r"^blocks\.\d+", "blocks.L", re.sub(r"^stages\.\d+", "stages.N", bare)))
    assert written == found
