"""Activations kept: the cache on disk, and the provider that feeds training from it."""

from cliplens.store.cache import Cache as Cache
from cliplens.store.harvest import harvest as harvest
from cliplens.store.provider import Provider as Provider
from cliplens.store.provider import provider_of as provider_of
