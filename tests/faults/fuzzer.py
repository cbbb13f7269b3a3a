"""A seeded fuzzer over every reader: mutated inputs are read, or refused in words."""

import json
import os
import random
import resource
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faults.readers import Reader

_TOKENS = (b"\x00", b"\xff\xfe", b"[[", b"null", b"-1", b"1e999", b"NaN", b'"', b"\n", b"{}", b"[]", b"true", b"''")


_VALUES = (None, True, -1, 0, 10**30, 1e308, float("nan"), "", "x", "../../x", [], [[]], {}, {"x": 1}, ["x", None])


def mutated(data: bytes, chance: random.Random, *, json_too: bool = False) -> bytes:
    """Some bytes replaced, removed, repeated or inserted; of JSON, every other time a value replaced or removed."""
    if json_too and chance.random() < 0.5:
        return _other_value(data, chance)
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 6))):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(6):
            case 0 if out:
                out[min(at, len(out) - 1)] = chance.randrange(256)
            case 1:
                del out[at : at + chance.randint(1, 40)]
            case 2:
                out[at:at] = chance.choice(_TOKENS)
            case 3:
                out[at:at] = out[at : at + chance.randint(1, 80)]
            case 4 if chance.random() < 0.5:
                del out[at:]
            case _:
                end = at
                while end < len(out) and chr(out[end]) in "0123456789.-+eE":
                    end += 1
                out[at:end] = chance.choice(_TOKENS)
    return bytes(out)


def _other_value(data: bytes, chance: random.Random) -> bytes:
    whole = [json.loads(data)]
    at: Any = whole
    key: Any = 0
    while isinstance(at[key], dict | list) and at[key] and chance.random() < 0.8:
        at = at[key]
        key = chance.choice(list(at)) if isinstance(at, dict) else chance.randrange(len(at))
    if isinstance(at, dict) and chance.random() < 0.3:
        del at[key]
    else:
        at[key] = chance.choice(_VALUES)
    return json.dumps(whole[0]).encode()


def fuzz(readers: Sequence[Reader], folder: Path, count: int, seed: int) -> dict[str, Counter[str]]:
    """Read `count` mutated inputs with every reader in turn; return how they ended, by reader."""
    chance = random.Random(seed)
    ended: dict[str, Counter[str]] = {reader.name: Counter() for reader in readers}
    folder.mkdir(exist_ok=True)
    for number in range(count):
        reader = readers[number % len(readers)]
        path = folder / f"mutated{reader.good.suffix}"
        json_too = reader.good.suffix == ".json" and reader.name != "answer of a model"
        path.write_bytes(mutated(reader.good.read_bytes(), chance, json_too=json_too))
        ended[reader.name][_read(reader.read, path)] += 1
    return ended


def _read(read: Callable[[Path], object], path: Path) -> str:
    from cliplens.errors import InternalError
    from cliplens.faults import in_words

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except Exception as error:
        if isinstance(in_words(error), InternalError):
            where = _where(error)
            return f"raw: {type(error).__name__}: {str(error)[:100]} at {where}"
        return "in words"
    return "read"


def _where(error: Exception) -> str:
    import traceback

    frames = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}cliplens" in f.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"


def limit_memory(gigabytes: float) -> None:
    """Let no input make this process larger than that."""
    resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 2**30),) * 2)
