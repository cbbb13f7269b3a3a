"""Zero-shot classification of pictures (`cliplens zero-shot`)."""

from cliplens_plugins.zero_shot.classified import Accuracy as Accuracy
from cliplens_plugins.zero_shot.classified import accuracy as accuracy
from cliplens_plugins.zero_shot.classified import classified as classified
