"""Read the activations of both towers for pairs, batch by batch.

Row i of the image activations and row i of the text activations belong to the same pair: when the image or the caption
of a pair cannot be used, both are dropped. The rows of a batch depend on the model and on the pairs of that batch only.
"""

from cliplens.deprecation import deprecated_names
from cliplens.stream.acts import ReadBatch as ReadBatch
from cliplens.stream.acts import SiteActs as SiteActs
from cliplens.stream.acts import finite as finite
from cliplens.stream.acts import mean as mean
from cliplens.stream.batches import Indices as Indices
from cliplens.stream.batches import Stream as Stream
from cliplens.stream.batches import decoded_batches as decoded_batches
from cliplens.stream.batches import stream as stream
from cliplens.stream.reader import AUTOCASTS as AUTOCASTS
from cliplens.stream.reader import TOKENS as TOKENS
from cliplens.stream.reader import SiteReader as SiteReader
from cliplens.stream.reader import Token as Token

__getattr__ = deprecated_names(__name__, {"Reader": "cliplens.stream:SiteReader", "Places": "cliplens.stream:Indices"})
