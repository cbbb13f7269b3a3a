"""Statistics that more than one metric needs: AUROC, intervals, bootstrap weights, false discovery rate.

Every function takes and returns plain numbers or numpy arrays, and states its range and the meaning of nan.
"""

from cliplens.statistics.auroc import auroc as auroc
from cliplens.statistics.auroc import auroc_interval as auroc_interval
from cliplens.statistics.bootstrap import REPLICATES as REPLICATES
from cliplens.statistics.bootstrap import mean_interval as mean_interval
from cliplens.statistics.bootstrap import percentile_interval as percentile_interval
from cliplens.statistics.bootstrap import poisson_weights as poisson_weights
from cliplens.statistics.differences import mean_difference as mean_difference
from cliplens.statistics.differences import ratio_difference as ratio_difference
from cliplens.statistics.differences import share_difference as share_difference
from cliplens.statistics.discovery import benjamini_hochberg as benjamini_hochberg
from cliplens.statistics.moments import mean_and_deviation as mean_and_deviation
from cliplens.statistics.wilson import exact_interval as exact_interval
from cliplens.statistics.wilson import mean_share_interval as mean_share_interval
from cliplens.statistics.wilson import wilson_interval as wilson_interval
