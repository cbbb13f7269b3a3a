"""Files of the package: the pruned merges of the tokenizer and the weights of the embedded models.

All of them are made by `python -m cliplens_hooks.training.world`.
"""

from pathlib import Path

ASSETS = Path(__file__).parent
MERGES = ASSETS / "merges.txt.gz"
"""The merges of CLIP's byte-pair encoding that the captions need, for open_clip's `SimpleTokenizer(bpe_path=...)`."""
