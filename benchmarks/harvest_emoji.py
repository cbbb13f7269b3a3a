"""How long does it take to read real drawings (pairs of noto_emoji), live and from the cache?

    python benchmarks/harvest_emoji.py --data FOLDER [--pairs 2000]

FOLDER contains `noto_emoji/emoji.csv` and its images; the default is the environment variable CLIPLENS_DATA.
"""

import os
import tempfile
import time
from pathlib import Path

import cliplens
from _bench import bench
from cliplens.sites import sites_of
from cliplens.store import Provider, harvest


def main() -> None:
    with bench(__file__, __doc__, data=Path(os.environ.get("CLIPLENS_DATA", "data")), pairs=2000) as b:
        table = b.args.data / "noto_emoji" / "emoji.csv"
        pairs = cliplens.read_pairs(
            table, image_column="file", caption_column="name", image_root=table.parent / "images"
        )[: b.args.pairs]
        clip = cliplens.load("world", device="cpu")
        image, text = sites_of("hook_embedding")
        seconds: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            for name in ("harvest", "the same again: hashes verified, nothing to do"):
                start = time.perf_counter()
                cache = harvest(clip, pairs, [image, text], Path(folder) / "cache", forward_batch=256)
                seconds[name] = time.perf_counter() - start
            start = time.perf_counter()
            next(cliplens.activations(clip, pairs, batch_size=512))
            seconds["first batch, live"] = time.perf_counter() - start
            start = time.perf_counter()
            next(Provider.from_cache(cache, image=image, text=text, batch_size=512))
            seconds["first batch, from the cache"] = time.perf_counter() - start
            title = f"{len(cache)} emoji kept, {cache.quarantined} bad, {cache.truncated} captions cut"
        b.table(title, {"step": "", "seconds": ".2f"})
        for name, taken in seconds.items():
            b.row(name, taken)


if __name__ == "__main__":
    main()
