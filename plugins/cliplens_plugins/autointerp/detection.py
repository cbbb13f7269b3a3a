"""Detection: can a judge tell, by the name alone, the samples a latent fires on from those it is silent on?

As in EleutherAI's delphi (https://github.com/EleutherAI/delphi), with the judge's answer a number, so that the score
is an AUROC in [0, 1], 0.5 = chance, and no threshold is chosen.
"""

import numpy as np
from jaxtyping import Int

from cliplens.naming import auroc
from cliplens.sites import Modality
from cliplens_plugins.autointerp.views import View


def detection(
    view: View, name: str, modality: Modality, top: Int[np.ndarray, " top"], silent: Int[np.ndarray, " silent"]
) -> float:
    """AUROC of the name's match with top samples against silent background samples; nan without either."""
    samples = view.samples[modality]
    return auroc(view.match(name, samples.exemplars[top]), view.match(name, samples.background[silent]))
