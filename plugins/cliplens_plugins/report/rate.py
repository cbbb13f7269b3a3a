"""Write a page for blind rating of latents. It shows whole pairs, without scores, classes or the modality that fired.

Three questions per latent: Is this one concept? Is it in the pictures, in the captions, or in both? Is the name right?
Answers stay in the browser until they are saved as a JSON file. `cliplens agree` reads the files of several raters.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from markupsafe import Markup

from cliplens.contracts import Reporter
from cliplens.errors import InputError
from cliplens.exemplars import load_exemplars
from cliplens.files import atomic_write
from cliplens.keys import hashed_uniform, pair_keys
from cliplens.naming import UNNAMED
from cliplens.pages import embedded, script_hash
from cliplens.records import Exemplars, LatentTable, Pair
from cliplens.runfolder import RunFolder
from cliplens_plugins.report.content import CLASSES, Content, read_content, reading
from cliplens_plugins.report.page import asset, environment, style
from cliplens_plugins.report.pictures import picture_uri

FORMAT = "cliplens-ratings-1"


@dataclass(frozen=True)
class RatePage(Reporter):
    """Write `rate.html`."""

    name: ClassVar[str] = "rate"
    latents: int = 48
    """Number of latents to rate, drawn evenly from the classes and shown in random order."""
    shown: int = 8
    """Number of pairs per latent."""
    seed: int = 0
    """Seed of the draw and of the order."""

    def write(self, folder: Path) -> Path:
        """Write the rating page of a finished run into its folder; return its path.

        Raises:
            InputError: the run has no exemplars yet.
        """
        run = RunFolder.open(folder)
        with reading(run):
            text = self._page(run)
        page = run.path / "rate.html"
        with atomic_write(page) as partial:
            partial.write_text(text, encoding="utf-8")
        return page

    def _page(self, run: RunFolder) -> str:
        content = read_content(run)
        if content.table is None or not content.exemplars:
            raise InputError(
                expected=f"a scored run in {run.path}",
                found="no exemplars",
                fix="finish the run with cliplens run, then write the page",
            )
        cards = [self._card(content, k) for k in self._chosen(content)]
        script = asset("rate.js")
        return str(
            environment()
            .get_template("rate.html")
            .render(
                content=content,
                style=Markup(style("report.css", "rate.css")),
                script=Markup(script),
                script_hash=script_hash(script),
                data=embedded({"format": FORMAT, "run": identity(run), "seed": self.seed, "cards": cards}),
            )
        )

    def _chosen(self, content: Content) -> list[int]:
        """Return living latents, drawn from each class in turn and shuffled, both by a hash of the latent's index."""
        assert content.table is not None
        draw = hashed_uniform(pair_keys([f"latent {k}" for k in range(len(content.table))]), self.seed)
        classes = content.table["modality"] if "modality" in content.table else np.full(len(content.table), "CrossD")
        queues = [sorted(np.flatnonzero(classes == c), key=lambda k: draw[k]) for c in CLASSES if c != "dead"]
        turns = [
            queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)
        ]
        return sorted((int(k) for k in turns[: self.latents]), key=lambda k: -draw[k])

    def _card(self, content: Content, latent: int) -> dict[str, Any]:
        """Return the card of a latent: pairs from the top samples of both modalities, alternating."""
        assert content.table is not None
        pairs: dict[str, Pair] = {}
        ranked = [_top(content.exemplars.get(m), latent) for m in ("image", "text")]
        for rank in range(max(map(len, ranked), default=0)):
            for top in ranked:
                if rank < len(top) and len(pairs) < self.shown:
                    pairs.setdefault(top[rank].id, top[rank])
        name = str(content.table["name"][latent]) if "name" in content.table else UNNAMED
        shown = sorted(pairs.values(), key=lambda p: int(pair_keys([p.id])[0]))
        return {
            "latent": latent,
            "name": None if name == UNNAMED else name,
            "pairs": [{"caption": p.caption, "picture": picture_uri(p)} for p in shown],
        }


def identity(run: RunFolder) -> str:
    """Return a short hash of the names of the latents and of the ids of their top samples.

    It identifies the latents that were rated, so that ratings of other latents are refused. It does not depend on
    versions of libraries.

    Raises:
        DamagedError: the exemplars cannot be read.
    """
    table = LatentTable.load(run.latents)
    digest = hashlib.blake2b(digest_size=8)
    digest.update("\n".join(map(str, table["name"] if "name" in table else [len(table)])).encode())
    for exemplars in load_exemplars(run.exemplars):
        if exemplars is not None:
            ids = np.array([*(pair.id for pair in exemplars.pairs), ""], dtype=object)
            digest.update(f"\n\n{exemplars.modality}\n".encode())
            digest.update("\n".join("\t".join(row) for row in ids[exemplars.at]).encode())
    return digest.hexdigest()


def former_identity(run: RunFolder) -> str:
    """Return the hash of run.toml, which identifies the run in ratings saved by earlier versions."""
    return hashlib.blake2b(run.toml.read_bytes(), digest_size=8).hexdigest()


def _top(exemplars: Exemplars | None, latent: int) -> list[Pair]:
    return [] if exemplars is None else [pair for pair, _ in exemplars.of(latent)]
