"""BibTeX of the methods that a run used (`cliplens cite`)."""

from cliplens_plugins.cite.methods import cited as cited
