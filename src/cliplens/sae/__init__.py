"""Dictionaries: trained by SAELens' stock trainer, saved in SAELens' own format. The only door to `sae_lens`."""

from cliplens.sae.checkpoint import resume_point as resume_point
from cliplens.sae.configs import architectures as architectures
from cliplens.sae.configs import dictionary_config as dictionary_config
from cliplens.sae.dictionary import Dictionary as Dictionary
from cliplens.sae.dictionary import Means as Means
from cliplens.sae.folding import folded as folded
from cliplens.sae.install import install as install
from cliplens.sae.install import uninstall as uninstall
from cliplens.sae.runner import multi_runner_config as multi_runner_config
from cliplens.sae.runner import runner_config as runner_config
from cliplens.sae.runner import unused_dataset as unused_dataset
from cliplens.sae.train import inference as inference
from cliplens.sae.train import train as train
