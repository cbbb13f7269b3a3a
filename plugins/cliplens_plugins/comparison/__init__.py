"""Compare dictionaries side by side: figures with intervals and controls, and which differences exceed chance."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.comparison.compare import Comparison as Comparison
    from cliplens_plugins.comparison.compare import compare as compare
    from cliplens_plugins.comparison.subjects import Subject as Subject
    from cliplens_plugins.comparison.subjects import open_subjects as open_subjects

export_lazily(__name__)
