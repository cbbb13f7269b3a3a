"""Images and captions in step. One file per kind of source; `read_pairs` selects the reader."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens.errors import BadPairError as BadPairError
    from cliplens.pairs.account import RowAccount as RowAccount
    from cliplens.pairs.captions import Tokenised as Tokenised
    from cliplens.pairs.captions import tokenised as tokenised
    from cliplens.pairs.decode import Decoded as Decoded
    from cliplens.pairs.decode import Decoder as Decoder
    from cliplens.pairs.dialect import Quoting as Quoting
    from cliplens.pairs.emoji import emoji_truth as emoji_truth
    from cliplens.pairs.emoji import is_emoji as is_emoji
    from cliplens.pairs.folder import IMAGE_SUFFIXES as IMAGE_SUFFIXES
    from cliplens.pairs.hugging import from_dataset as from_dataset
    from cliplens.pairs.images import open_image as open_image
    from cliplens.pairs.labels import LabelColumn as LabelColumn
    from cliplens.pairs.labels import read_labels as read_labels
    from cliplens.pairs.lazy import ImageColumn as ImageColumn
    from cliplens.pairs.lazy import LazyImages as LazyImages
    from cliplens.pairs.pairs import Pairs as Pairs
    from cliplens.pairs.quarantine import Quarantine as Quarantine
    from cliplens.pairs.quarantine import read_quarantine as read_quarantine
    from cliplens.pairs.read import check_source as check_source
    from cliplens.pairs.read import read_pairs as read_pairs

export_lazily(__name__)
