"""Bias: measure it, compare published methods with edits of latents, and find the modality in which it lies."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.bias.association import PairBias as PairBias
    from cliplens_plugins.bias.association import TiedRate as TiedRate
    from cliplens_plugins.bias.association import pair_bias as pair_bias
    from cliplens_plugins.bias.association import tied_rate as tied_rate
    from cliplens_plugins.bias.data import BiasData as BiasData
    from cliplens_plugins.bias.data import Prompts as Prompts
    from cliplens_plugins.bias.data import Utility as Utility
    from cliplens_plugins.bias.methods import Method as Method
    from cliplens_plugins.bias.methods import attribute_latents as attribute_latents
    from cliplens_plugins.bias.methods import dictionary_methods as dictionary_methods
    from cliplens_plugins.bias.methods import embedding_methods as embedding_methods
    from cliplens_plugins.bias.methods import leace_method as leace_method
    from cliplens_plugins.bias.metrics import association as association
    from cliplens_plugins.bias.metrics import equalised_odds as equalised_odds
    from cliplens_plugins.bias.metrics import group_accuracy as group_accuracy
    from cliplens_plugins.bias.metrics import max_skew as max_skew
    from cliplens_plugins.bias.metrics import ndkl as ndkl
    from cliplens_plugins.bias.metrics import parity_difference as parity_difference
    from cliplens_plugins.bias.metrics import worst_group_auc as worst_group_auc
    from cliplens_plugins.bias.pictures import LabelledPictures as LabelledPictures
    from cliplens_plugins.bias.planted import planted_pairs as planted_pairs
    from cliplens_plugins.bias.readers import read_bias_set as read_bias_set
    from cliplens_plugins.bias.sem import sem as sem
    from cliplens_plugins.bias.study import Measured as Measured
    from cliplens_plugins.bias.study import measure as measure

export_lazily(__name__)
