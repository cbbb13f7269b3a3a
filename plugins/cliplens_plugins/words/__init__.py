"""Compare latents by kinds of words and by language, and map their names to a fixed vocabulary (`cliplens words`)."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.words.kinds import KindShare as KindShare
    from cliplens_plugins.words.kinds import kind_shares as kind_shares
    from cliplens_plugins.words.languages import bound_latents as bound_latents
    from cliplens_plugins.words.languages import names_in as names_in
    from cliplens_plugins.words.languages import same_thing as same_thing
    from cliplens_plugins.words.presence import latent_words as latent_words
    from cliplens_plugins.words.presence import words_of as words_of
    from cliplens_plugins.words.standard import Label as Label
    from cliplens_plugins.words.standard import Vocabulary as Vocabulary
    from cliplens_plugins.words.standard import agreement as agreement
    from cliplens_plugins.words.taggers import Tagger as Tagger
    from cliplens_plugins.words.taggers import open_tagger as open_tagger
    from cliplens_plugins.words.tokens import coverage as coverage

export_lazily(__name__)
