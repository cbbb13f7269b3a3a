"""The plan of a cache: all settings that determine its bytes, made before the first pair is read."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from cliplens.deprecation import renamed_keywords
from cliplens.errors import InputError, PairsError, unknown_name
from cliplens.keys import hashed
from cliplens.pairs import Decoder, Pairs
from cliplens.records import ModelIdentity, Pair
from cliplens.sites import Site
from cliplens.store.arrow import ShardSchema
from cliplens.stream import SiteReader

FORMAT = "cliplens-activations-1"
SHUFFLES = ("all", "local", "none")
_SHARD_BYTES = 256 * 2**20
_FEW_PAIRS = 256
_PROBED = 64


@dataclass(frozen=True)
class SitePlan:
    """A site and the schema of its shard files."""

    site: Site
    schema: ShardSchema
    token: str
    """The token choice: cls, eot, single (the hook has one position), mean, patches or all."""


@dataclass(frozen=True)
class Plan:
    """All settings that determine the bytes of a cache. Two caches with equal plans are equal."""

    model: ModelIdentity
    pairs: str
    pairs_sha256: str
    n_pairs: int
    sites: tuple[SitePlan, ...]
    token: str
    dtype: str
    compute: str
    """The dtype of the model, then options such as autocast."""
    batch_size: int
    """Pairs per forward pass."""
    shard_pairs: int
    shuffle: str
    """"all": one permutation of all pairs. "local": shards in order, pairs permuted in each. "none": as they come."""
    seed: int
    pictures: str | None = None
    """How picture files are opened (`cliplens.pictures.PictureOptions`); None without files, and in old caches."""

    @property
    def n_shards(self) -> int:
        """Number of shards, the last one possibly smaller."""
        return -(-self.n_pairs // self.shard_pairs)

    @property
    def names(self) -> range:
        """The numbers of the shards."""
        return range(self.n_shards)

    @property
    def bytes_per_pair(self) -> int:
        """Bytes of a pair on disk, all sites and its id together."""
        return sum(s.schema.bytes_per_pair for s in self.sites) + 64

    def pairs_in(self, shard: int) -> int:
        """Return the number of pairs of a shard, bad ones included."""
        return min(self.shard_pairs, self.n_pairs - shard * self.shard_pairs)

    def indices(self, shard: int) -> Int64[np.ndarray, " pair"]:
        """Return the indices of the pairs in a shard, in its order."""
        here = shard * self.shard_pairs + np.arange(self.pairs_in(shard))
        if self.shuffle == "all":
            return self._permutation[here]
        return here[_order(here, self.seed)] if self.shuffle == "local" else here

    @cached_property
    def _permutation(self) -> Int64[np.ndarray, " pair"]:
        return _order(np.arange(self.n_pairs), self.seed)

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        sites = [{"site": str(s.site), "folder": str(s.site), "token": s.token, **asdict(s.schema)} for s in self.sites]
        out = {k: getattr(self, k) for k in self.__dataclass_fields__ if k != "pictures" or self.pictures}
        return {"format": FORMAT, **out, "model": asdict(self.model), "sites": sites}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Plan":
        """Return the plan that `as_json` wrote.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: a value is missing, or of another type than was written.
        """
        content = {k: v for k, v in found.items() if k in cls.__dataclass_fields__}
        for field in fields(cls):
            if field.type in (str, int) and type(content[field.name]) is not field.type:
                raise TypeError(f"{field.name} is {content[field.name]!r}")
        sites = tuple(
            SitePlan(
                Site.parse(s["site"]), ShardSchema(**{k: s[k] for k in ShardSchema.__dataclass_fields__}), s["token"]
            )
            for s in found["sites"]
        )
        return cls(**{**content, "model": ModelIdentity(**found["model"]), "sites": sites})

    @property
    def sha256(self) -> str:
        """Hash of the plan."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()


def _order(places: Int64[np.ndarray, " pair"], seed: int) -> Int64[np.ndarray, " pair"]:
    return np.argsort(hashed(places.astype(np.uint64), seed)).astype(np.int64)


@renamed_keywords(batch_size="forward_batch")
def plan_harvest(
    reader: SiteReader,
    pairs: Pairs,
    decoder: Decoder,
    dtype: str,
    forward_batch: int,
    shard_pairs: int | None,
    shuffle: str,
    seed: int,
) -> Plan:
    """Return the plan of a harvest: the schema of each site, from the first pair that can be read, and the shards.

    Raises:
        InputError: the dtype cannot be stored.
        UnknownNameError: `shuffle` is unknown.
        PairsError: none of the first pairs can be read.
    """
    if dtype not in ("float16", "float32"):
        raise InputError(
            expected="float16 or float32 on disk (Arrow has no bfloat16)", found=repr(dtype), fix="use dtype='float16'"
        )
    if shuffle not in SHUFFLES:
        raise unknown_name("shuffle", shuffle, SHUFFLES)
    forms = tuple(_probe(reader, decoder, dtype))
    largest = max(s.schema.bytes_per_pair for s in forms)
    by_bytes = max(_SHARD_BYTES // largest, 1)
    default = max(min(by_bytes, max(len(pairs) // 64, _FEW_PAIRS)) // forward_batch, 1) * forward_batch
    return Plan(
        model=reader.clip.identity,
        pairs=pairs.name,
        pairs_sha256=pairs.sha256,
        n_pairs=len(pairs),
        sites=forms,
        token=reader.token,
        dtype=dtype,
        compute=_compute(reader),
        batch_size=forward_batch,
        shard_pairs=shard_pairs or default,
        shuffle=shuffle,
        seed=seed,
        pictures=str(pairs.opening) if decoder.preprocess is not None and not pairs.has_pixels else None,
    )


def _compute(reader: SiteReader) -> str:
    said = [str(reader.clip.dtype).removeprefix("torch.")]
    said += [f"autocast {reader.autocast}"] if reader.autocast else []
    return ", ".join([*said, "compiled"] if reader.compiled else said)


def _probe(reader: SiteReader, decoder: Decoder, dtype: str) -> Iterator[SitePlan]:
    """Return the schema of each site, from the first pair that can be read."""
    bad: list[tuple[Pair, str]] = []
    for place in range(min(len(decoder), _PROBED)):
        decoded = decoder[np.array([place], dtype=np.int64)]
        if decoded.ids:
            break
        bad += decoded.bad
    else:
        pair, reason = bad[0]
        what = f" ({pair.source})" if isinstance(pair.source, Path) else ""
        raise PairsError(
            expected=f"a good pair among the first {_PROBED}",
            found=f"none; pair {pair.id!r}: {reason}{what}",
            fix="check the paths and columns: --image-root, --image-column, --caption-column",
        )
    # The schema does not depend on compiling. So a finished harvest is not compiled again.
    plain = SiteReader(reader.clip, reader.sites, reader.token) if reader.compiled else reader
    batch = plain.read(decoded)
    for site, found in batch.sites.items():
        context, width = found.acts.shape[1:]
        token = found.token
        yield SitePlan(
            site, ShardSchema(site.hook, context, width, dtype, token_ids=token in ("all", "patches")), token
        )
