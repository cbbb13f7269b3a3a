"""Name latents: `name_latents` runs a namer and tests its names, `name_columns` makes columns of the latent table."""

from cliplens.deprecation import deprecated_names
from cliplens.naming.columns import IMAGE_DOMINATED as IMAGE_DOMINATED
from cliplens.naming.columns import UNNAMED as UNNAMED
from cliplens.naming.columns import chosen_modality as chosen_modality
from cliplens.naming.columns import name_agreement as name_agreement
from cliplens.naming.columns import name_columns as name_columns
from cliplens.naming.evidence import image_share as image_share
from cliplens.naming.evidence import split_evidence as split_evidence
from cliplens.naming.latents import Embed as Embed
from cliplens.naming.latents import name_latents as name_latents
from cliplens.naming.vocabulary import caption_vocabulary as caption_vocabulary
from cliplens.naming.vocabulary import function_words as function_words
from cliplens.naming.vocabulary import in_context as in_context
from cliplens.naming.vocabulary import too_frequent as too_frequent
from cliplens.naming.vocabulary import words as words

__getattr__ = deprecated_names(
    __name__,
    {"words_of": "cliplens.naming.vocabulary:caption_vocabulary", "auroc": "cliplens.statistics:auroc"},
)
