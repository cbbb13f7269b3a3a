"""Dictionaries, trained by SAELens' trainer and saved in SAELens' format. No other package imports `sae_lens`."""

from cliplens.sae.architectures import FastTopKTrainingSAE as FastTopKTrainingSAE
from cliplens.sae.architectures import GroupSparseTrainingSAE as GroupSparseTrainingSAE
from cliplens.sae.architectures import IsoEnergyTrainingSAE as IsoEnergyTrainingSAE
from cliplens.sae.architectures import MaskedGroupSparseTrainingSAE as MaskedGroupSparseTrainingSAE
from cliplens.sae.architectures import NCLTrainingSAE as NCLTrainingSAE
from cliplens.sae.architectures import TwoDecodersTrainingSAE as TwoDecodersTrainingSAE
from cliplens.sae.architectures import architecture_names as architecture_names
from cliplens.sae.architectures import needs_pairs as needs_pairs
from cliplens.sae.checkpoint import remove_checkpoints as remove_checkpoints
from cliplens.sae.checkpoint import resume_point as resume_point
from cliplens.sae.configs import dictionary_config as dictionary_config
from cliplens.sae.configs import sparsity_fields as sparsity_fields
from cliplens.sae.dictionary import Dictionary as Dictionary
from cliplens.sae.folder import verify_folder as verify_folder
from cliplens.sae.folding import Means as Means
from cliplens.sae.folding import folded as folded
from cliplens.sae.foreign import layouts as layouts
from cliplens.sae.inference import inference as inference
from cliplens.sae.install import install as install
from cliplens.sae.install import uninstall as uninstall
from cliplens.sae.moved import register_old_modules
from cliplens.sae.opening import open_dictionary as open_dictionary
from cliplens.sae.opening import open_foreign as open_foreign
from cliplens.sae.pretrained import located as located
from cliplens.sae.runner import multi_runner_config as multi_runner_config
from cliplens.sae.runner import runner_config as runner_config
from cliplens.sae.runner import unused_dataset as unused_dataset
from cliplens.sae.threshold import Calibration as Calibration
from cliplens.sae.threshold import calibration_of as calibration_of
from cliplens.sae.train import train as train
from cliplens.sae.untrained import untrained_twin as untrained_twin

register_old_modules()
