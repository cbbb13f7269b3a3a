"""Feed every metric in one pass over the codes, and merge the states of metrics over processes.

The states of most metrics are `Sums` (named sums) and `TopSamples` (the strongest samples of each latent). Neither
depends on the order of batches or merges, beyond the rounding of float64.
"""

from cliplens.distributed import shards as shards
from cliplens.tally.one_pass import Tally as Tally
from cliplens.tally.one_pass import tally as tally
from cliplens.tally.reduce import all_reduce as all_reduce
from cliplens.tally.states import Mergeable as Mergeable
from cliplens.tally.states import MetricOfParts as MetricOfParts
from cliplens.tally.states import PartPerKey as PartPerKey
from cliplens.tally.states import Stateful as Stateful
from cliplens.tally.states import joined_states as joined_states
from cliplens.tally.states import load_joined as load_joined
from cliplens.tally.sums import Sums as Sums
from cliplens.tally.top_samples import TopSamples as TopSamples
