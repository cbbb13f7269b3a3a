"""Name latents from pictures with CLIP-Dissect's own functions; the script that calls this one counts the right names.

Every function gets the cosine of every picture with every word, and the activation of every latent on every picture,
with the defaults of the published code.
"""

import contextlib
import sys
import time
from typing import Any

import torch
from _case import Options, arrays, main, on_cpu, source

FUNCTIONS = ("soft_wpmi", "wpmi", "cos_similarity_cubed", "cos_similarity", "rank_reorder")


def clip_dissect(asked: Options) -> dict[str, Any]:
    """Return the index of the best word of each latent, by function and kind of words."""
    on_cpu()
    torch.cuda.empty_cache = lambda: None
    given = {name: values.float() for name, values in arrays(asked, "names").items()}
    similarity = source(asked, "similarity")
    found: dict[str, Any] = {}
    for kind in ("alone", "in_context"):
        for name in FUNCTIONS:
            options = {"top_k": min(100, len(given["acts"]))} if name == "soft_wpmi" else {}
            started = time.process_time()
            with contextlib.redirect_stdout(sys.stderr):
                scores = getattr(similarity, name)(given[kind].clone(), given["acts"].clone(), device="cpu", **options)
            took = time.process_time() - started
            found[f"{name}, {kind}"] = {"words": scores.nan_to_num(-torch.inf).argmax(1).tolist(), "seconds": took}
    return {"names": found}


if __name__ == "__main__":
    main({"clip_dissect": clip_dissect}, __doc__)
