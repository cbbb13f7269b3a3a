"""Write docs/coverage.md from the code: `python -m cliplens_hooks.coverage docs/coverage.md`."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cliplens.contracts import ModelCard
from cliplens_hooks.models.open_clip import OpenClipModels

HEAD = """# Coverage

Written by `python -m cliplens_hooks.coverage docs/coverage.md`. A test compares this page with the code; another builds
every configuration with reduced depth and width and random weights, and opens it.

Level of hooks: **heads** has the full table (queries, keys, values, scores, patterns, results, MLPs, norms, residual
stream); **blocks** has the input and output of each block; **stages** has the output of each stage as
[batch, height * width, channels]. Pooled, projected and normalised embeddings have hooks in every tower.
"""
BESIDES = """## Other names

| name | models | hooks |
|---|---|---|
| `local-dir:/path`, `hf-hub:org/repo` | any model saved by open_clip | those of its families |
| `hf:org/repo`, `hf:/path` | Hugging Face CLIP, SigLIP, SigLIP 2, converted to open_clip | heads, heads |
| `hf:/path/text_encoder` | `CLIPTextModel` and similar encoders alone, as in a diffusers pipeline | no vision, heads |
| `hf:/path/image_encoder` | `CLIPVisionModel` and similar encoders alone | heads, no text |
| `slip:/file`, `declip:/file` | the authors' checkpoints of SLIP and DeCLIP (ViT) | heads, heads |
| `timm:name` | timm `VisionTransformer` and `Eva`, such as DINO | heads, no text |
| `world`, `world-plain` | the embedded models | heads, heads |
| `emoji`, `emoji-seed1`, `emoji-seed2`, `emoji-plain` | real drawings; twins made on demand | heads, heads |

Not supported: CoCa's captioning decoder (its two encoders are supported), rotary embeddings that differ between
blocks (timm's `mixed`), grouped-query and gated attention.
"""


def coverage(cards: Sequence[ModelCard]) -> str:
    """Return the text of docs/coverage.md."""
    parts = [HEAD, _summary(cards), "## Families\n", _families(cards), BESIDES, "## Configurations\n", _listing(cards)]
    return "\n".join(parts)


def _summary(cards: Sequence[ModelCard]) -> str:
    vision, text = (Counter(levels) for levels in ([c.vision_level for c in cards], [c.text_level for c in cards]))
    both = sum(card.vision_level == card.text_level == "heads" for card in cards)
    tags = sum(len(card.pretrained) for card in cards)
    return (
        f"open_clip ships {len(cards)} configurations with {tags} pretrained tags; all {len(cards)} open. "
        f"Vision towers: {_counted(vision)}. Text towers: {_counted(text)}. Heads on both sides: {both}.\n"
    )


def _counted(levels: Counter[Any]) -> str:
    return ", ".join(f"{n} at {level}" for level, n in levels.most_common())


def _families(cards: Sequence[ModelCard]) -> str:
    vision = Counter((card.vision_family, card.vision_level) for card in cards)
    text = Counter((card.text_family, card.text_level) for card in cards)
    rows = [
        f"| {side} | {family} | {level} | {n} |"
        for side, found in (("vision", vision), ("text", text))
        for (family, level), n in found.most_common()
    ]
    return "\n".join(["| side | family | hooks | configurations |", "|---|---|---|---|", *rows, ""])


def _listing(cards: Sequence[ModelCard]) -> str:
    rows = [
        f"| {c.name} | {c.vision_family} | {c.vision_level} | {c.text_family} | {c.text_level} | {len(c.pretrained)} |"
        for c in cards
    ]
    return "\n".join(["| name | vision | hooks | text | hooks | tags |", "|---|---|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(coverage(OpenClipModels().models()))
