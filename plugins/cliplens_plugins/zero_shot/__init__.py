"""Zero-shot classification of pictures (`cliplens zero-shot`)."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.zero_shot.classified import Accuracy as Accuracy
    from cliplens_plugins.zero_shot.classified import accuracy as accuracy
    from cliplens_plugins.zero_shot.classified import classified as classified

export_lazily(__name__)
