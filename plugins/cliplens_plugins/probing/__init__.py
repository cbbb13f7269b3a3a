"""Further metrics of latents: Moran's I of patches, k-sparse probes, absorption, CKNNA, FVU. Each has a control."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.probing.absorption import Absorption as Absorption
    from cliplens_plugins.probing.absorption import absorption as absorption
    from cliplens_plugins.probing.cknna import cknna as cknna
    from cliplens_plugins.probing.fvu import fvu as fvu
    from cliplens_plugins.probing.moran import morans_i as morans_i
    from cliplens_plugins.probing.moran_metric import MoranMetric as MoranMetric
    from cliplens_plugins.probing.sparse_probe import Probe as Probe
    from cliplens_plugins.probing.sparse_probe import sparse_probe as sparse_probe

export_lazily(__name__)
