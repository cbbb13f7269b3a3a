"""BibTeX of the methods that a run used (`cliplens cite`)."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.cite.methods import cited as cited

export_lazily(__name__)
