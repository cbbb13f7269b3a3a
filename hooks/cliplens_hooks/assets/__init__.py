"""Files of the package: weights and merges of the embedded model of real drawings.

All of them are made by `python -m cliplens_hooks.training.emoji`; NOTICE says from whose work.
"""

from pathlib import Path

ASSETS = Path(__file__).parent
MERGES = ASSETS / "emoji_merges.txt.gz"
"""Byte-pair merges learnt from the names in fifteen languages, for open_clip's `SimpleTokenizer(bpe_path=...)`."""
