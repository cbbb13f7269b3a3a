"""Names for latents, and tests of those names.

A *namer* gives each latent a name from its top images and a name from its top captions:

- `VocabularyNamer` (`vocabulary`): the vocabulary word nearest to the top images; the word that top captions share.
- `DecoderNamer` (`decoder`): the vocabulary word nearest to the decoder row.
- `SoftWpmiNamer` (`wpmi`): soft-WPMI of CLIP-Dissect, over images and over captions.
- `CaptionNamer` (`captions`): the phrase that the captions of top samples share.
- `NeighbourNamer` (`neighbours`): what the nearest captions share, as LatentLens names by neighbours in context.
- `ApartNamer` (`apart`): `vocabulary`, with a word added to names that several latents share.
- `endpoint.EndpointNamer` (`endpoint`): a language or vision-language model behind an OpenAI-compatible endpoint.
- `local.TransformersNamer` (`transformers`): the same with a model in a local folder.

A *scorer* tests names on held-out samples (detection, fuzzing and intruder tests; within a modality and across; with
shuffled names as the control):

- `HeldOutScorer` (`held_out`): judges with embeddings of the model or of other models, and with the words of captions.
- `language_model_scorer.LanguageModelScorer` (`asked`): asks a language or vision-language model.
"""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.autointerp.apart import ApartNamer as ApartNamer
    from cliplens_plugins.autointerp.captions import CaptionNamer as CaptionNamer
    from cliplens_plugins.autointerp.decoder import DecoderNamer as DecoderNamer
    from cliplens_plugins.autointerp.heldout import HeldOutScorer as HeldOutScorer
    from cliplens_plugins.autointerp.name_tests import shuffle_names as shuffle_names
    from cliplens_plugins.autointerp.neighbours import NeighbourNamer as NeighbourNamer
    from cliplens_plugins.autointerp.vocabulary import VocabularyNamer as VocabularyNamer
    from cliplens_plugins.autointerp.wpmi import SoftWpmiNamer as SoftWpmiNamer

export_lazily(__name__)
