"""The cache of activations on disk, and the provider of training batches."""

from cliplens.distributed import Group as Group
from cliplens.store.cache import Cache as Cache
from cliplens.store.embedding_files import read_embeddings as read_embeddings
from cliplens.store.embeddings import Embeddings as Embeddings
from cliplens.store.harvest import harvest as harvest
from cliplens.store.live import provider_of as provider_of
from cliplens.store.provider import Provider as Provider
from cliplens.store.token_datasets import caption_dataset as caption_dataset
from cliplens.store.token_datasets import image_dataset as image_dataset
