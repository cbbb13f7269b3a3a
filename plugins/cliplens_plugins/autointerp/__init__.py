"""Names for latents, and tests of those names.

A *namer* says in words what a latent is, once from its top images and once from its top captions:

- `VocabularyNamer` (`vocabulary`): the word of a vocabulary nearest to the top images; the word top captions share.
- `DecoderNamer` (`decoder`): the word of a vocabulary nearest to the decoder row.
- `SoftWpmiNamer` (`wpmi`): soft-WPMI of CLIP-Dissect, over images and over captions.
- `CaptionNamer` (`captions`): the phrase that the captions of top samples share.
- `endpoint.EndpointNamer` (`endpoint`): a language or vision-language model behind an OpenAI-compatible endpoint.
- `local.TransformersNamer` (`transformers`): the same with a model in a local folder.

A *scorer* tests names on samples that none was made from (detection, fuzzing, intruder; in both modalities and across;
against shuffled names):

- `HeldOutScorer` (`held_out`): by embeddings of the model and of other judges, and by the words of captions.
- `language_model_scorer.LanguageModelScorer` (`asked`): by asking a language or vision-language model.
"""

from cliplens_plugins.autointerp.captions import CaptionNamer as CaptionNamer
from cliplens_plugins.autointerp.decoder import DecoderNamer as DecoderNamer
from cliplens_plugins.autointerp.heldout import HeldOutScorer as HeldOutScorer
from cliplens_plugins.autointerp.name_tests import shuffle_names as shuffle_names
from cliplens_plugins.autointerp.vocabulary import VocabularyNamer as VocabularyNamer
from cliplens_plugins.autointerp.wpmi import SoftWpmiNamer as SoftWpmiNamer
