"""One pass over the codes feeds every metric; the states of metrics merge, on one machine or on many.

`Sums` and `TopSamples` are the two states most metrics are made of: sums that add up, and the strongest samples of each
latent. Neither depends on the order in which batches come or are merged, beyond the rounding of float64.
"""

from cliplens.tally.one_pass import Tally as Tally
from cliplens.tally.one_pass import tally as tally
from cliplens.tally.reduce import all_reduce as all_reduce
from cliplens.tally.reduce import shards as shards
from cliplens.tally.states import Mergeable as Mergeable
from cliplens.tally.states import MetricOfParts as MetricOfParts
from cliplens.tally.states import PartPerKey as PartPerKey
from cliplens.tally.states import Stateful as Stateful
from cliplens.tally.states import joined_states as joined_states
from cliplens.tally.states import load_joined as load_joined
from cliplens.tally.sums import Sums as Sums
from cliplens.tally.top_samples import TopSamples as TopSamples
