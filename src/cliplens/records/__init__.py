"""Frozen records that pass between the layers of cliplens.

A *pair* is an image and its caption. A *row* is one position of one pair. *Codes* are the latent activations of rows.
A *batch* holds everything a metric sees at once. A *table* has one row per latent.
"""

from typing import TYPE_CHECKING

from cliplens.deprecation import deprecated_names
from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens.records.codes import Batch as Batch
    from cliplens.records.codes import JointFirings as JointFirings
    from cliplens.records.codes import PairedActs as PairedActs
    from cliplens.records.codes import PairedCodes as PairedCodes
    from cliplens.records.codes import SparseCodes as SparseCodes
    from cliplens.records.evidence import Evidence as Evidence
    from cliplens.records.evidence import Name as Name
    from cliplens.records.exemplars import Exemplars as Exemplars
    from cliplens.records.exemplars import PositionActivations as PositionActivations
    from cliplens.records.exemplars import Positions as Positions
    from cliplens.records.identity import GroundTruth as GroundTruth
    from cliplens.records.identity import ImageSource as ImageSource
    from cliplens.records.identity import ModelIdentity as ModelIdentity
    from cliplens.records.identity import Pair as Pair
    from cliplens.records.identity import Provenance as Provenance
    from cliplens.records.identity import Sharing as Sharing
    from cliplens.records.table import WARNING as WARNING
    from cliplens.records.table import Column as Column
    from cliplens.records.table import Findings as Findings
    from cliplens.records.table import Latent as Latent
    from cliplens.records.table import LatentTable as LatentTable
    from cliplens.records.units import Units as Units

__getattr__ = deprecated_names(
    __name__,
    {"Edit": "cliplens.edits:Edit", "Heat": "cliplens.records:PositionActivations"},
)

export_lazily(__name__)
