"""Images and captions in step. One file per source; `read_pairs` finds the right one."""

from cliplens.pairs.pairs import ImageColumn as ImageColumn
from cliplens.pairs.pairs import Pairs as Pairs
from cliplens.pairs.read import read_pairs as read_pairs
