"""Real drawings with real names: the same emoji by three artists, named in 21 languages.

`asked` reads a name such as `emoji:noto?language=de,ja`, `catalogue` the tables, `source` makes pairs and their ground
truth, `held_out` says what the embedded model of these drawings never saw.
"""

from cliplens.pairs.emoji.asked import ARTISTS as ARTISTS
from cliplens.pairs.emoji.asked import EMOJI_PREFIX as EMOJI_PREFIX
from cliplens.pairs.emoji.asked import GET_THEM as GET_THEM
from cliplens.pairs.emoji.asked import LANGUAGES as LANGUAGES
from cliplens.pairs.emoji.asked import EmojiSource as EmojiSource
from cliplens.pairs.emoji.asked import data_folder as data_folder
from cliplens.pairs.emoji.asked import is_emoji as is_emoji
from cliplens.pairs.emoji.catalogue import Drawing as Drawing
from cliplens.pairs.emoji.catalogue import drawings as drawings
from cliplens.pairs.emoji.catalogue import named as named
from cliplens.pairs.emoji.held_out import is_unseen as is_unseen
from cliplens.pairs.emoji.held_out import is_unseen_cell as is_unseen_cell
from cliplens.pairs.emoji.held_out import is_unseen_concept as is_unseen_concept
from cliplens.pairs.emoji.source import emoji_truth as emoji_truth
from cliplens.pairs.emoji.source import read_emoji as read_emoji
