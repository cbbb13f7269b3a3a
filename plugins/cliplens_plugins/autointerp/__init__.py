"""Names for latents, and tests of those names.

A *namer* says in words what a latent is, once from its top images and once from its top captions:

- `VocabularyNamer` (`vocabulary`): the word of a vocabulary nearest to the top images; the word top captions share.
"""

from cliplens_plugins.autointerp.vocabulary import VocabularyNamer as VocabularyNamer
