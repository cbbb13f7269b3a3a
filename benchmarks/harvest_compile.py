"""Time reading a batch with and without torch.compile.

    python benchmarks/harvest_compile.py [--model ViT-B-32] [--batch 32] [--rounds 9] [--device cuda]

Each round runs both cases in random order; the table gives the median of the paired ratios with its 95 % interval.
"""

import random
import time

import numpy as np
import torch

from _bench import bench, ratio
from cliplens.pairs import Decoded
from cliplens.sites import sites_of
from cliplens.stream import SiteReader
from harvest import noise_pairs, random_clip


def main() -> None:
    with bench(__file__, __doc__, model="ViT-B-32", batch=32, rounds=9) as b:
        args = b.args
        clip = random_clip(args.model, args.device)
        last = min(clip.vision.cfg.n_layers, clip.text.cfg.n_layers) - 1
        asked = {
            "hook_embedding of both towers": sites_of("hook_embedding"),
            "the last residual of both": sites_of(f"blocks.{last}.hook_resid_post"),
        }
        b.table(
            f"{args.model}, random weights, batches of {args.batch}",
            {"read": "", "seconds to compile": ".0f", "times as fast": ".3f", "largest difference": ".1e"},
        )
        for name, sites in asked.items():
            plain, compiled = SiteReader(clip, sites), SiteReader(clip, sites, compiled=args.batch)
            decoded = plain.decoder(noise_pairs(clip, args.batch))[np.arange(args.batch)]
            first = seconds(compiled, decoded, args.device)
            seconds(plain, decoded, args.device)
            taken: dict[SiteReader, list[float]] = {plain: [], compiled: []}
            draw = random.Random(0)
            for _ in range(args.rounds):
                for reader in draw.sample([plain, compiled], 2):
                    taken[reader].append(seconds(reader, decoded, args.device))
            one, other = (reader.read(decoded).sites for reader in (plain, compiled))
            off = max(float((one[s].acts - other[s].acts).abs().max()) for s in sites)
            b.row(name, first, ratio(taken[plain], taken[compiled]), off)


def seconds(reader: SiteReader, decoded: Decoded, device: str) -> float:
    """Return the wall time of reading one batch, because compilation runs in other threads."""
    start = time.perf_counter()
    reader.read(decoded)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
