"""Name every latent from one half of the evidence and test the names on the other half."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cliplens.contracts import Judge, Namer, Scorer
from cliplens.errors import PluginError
from cliplens.naming.columns import chosen_modality, name_columns
from cliplens.naming.evidence import half_of, image_share, whole
from cliplens.records import Column, Evidence, Findings
from cliplens.sites import Modality
from cliplens.store.memory import trim_memory

Embed = Callable[[Sequence[str]], Float[Tensor, "text d_embed"]]


def name_latents(
    evidence: Evidence,
    namer: Namer,
    *,
    scorers: Sequence[Scorer] = (),
    embed: Embed | None = None,
    judges: Sequence[Judge] = (),
) -> Findings:
    """Name every latent from one half of the evidence, and test the names on the other half.

    Args:
        evidence: the whole evidence; it is split by `split_evidence`, unless there are no scorers.
        namer: gives each latent one name from images and one from captions.
        scorers: tests of the names, which add columns and tables. If one gives a held-out score, it is `name_score`.
        embed: the studied model's embedding of texts, for scorers.
        judges: independent encoders, for scorers.

    Raises:
        PluginError: the namer does not return one name per latent.
    """
    naming = half_of(evidence, first=True) if scorers else whole(evidence)
    trim_memory()
    given = {"images": namer.from_images(naming), "captions": namer.from_captions(naming)}
    for source, names in given.items():
        if len(names) != evidence.d_sae:
            raise PluginError(
                expected=f"one name per latent ({evidence.d_sae}) from the namer {namer.name!r}",
                found=f"{len(names)} names from {source}",
                fix="return Name(None, nan) for a latent without evidence",
            )
    share = image_share(naming)
    found = name_columns(given["images"], given["captions"], alive=evidence.alive, by=namer.name, image_share=share)
    if scorers:
        del naming
        trim_memory()
        naming = half_of(evidence, first=False)
    for scorer in scorers:
        found = _joined(found, scorer.score(given["images"], given["captions"], naming, embed, judges))
    return _with_tested_score(found, chosen_modality(given["images"], given["captions"], share))


def _with_tested_score(found: Findings, chosen: Sequence[Modality | None]) -> Findings:
    """Add the held-out score of the final name and its limits, if a scorer gave those of both names."""
    columns, schema = dict(found.columns), {c.name: c for c in found.schema}
    for suffix, about in (("score", "Tested score"), ("score_low", "Lower limit"), ("score_high", "Upper limit")):
        of = {"image": columns.get(f"name_image_{suffix}"), "text": columns.get(f"name_text_{suffix}")}
        if any(values is None for values in of.values()) and suffix != "score":
            continue
        values = [of[m][k] if m and of[m] is not None else np.nan for k, m in enumerate(chosen)]  # type: ignore[index]
        columns[f"name_{suffix}"] = np.array(values, dtype=np.float64)
        says = f"{about} of the final name: that of name_image_{suffix} or name_text_{suffix}."
        schema[f"name_{suffix}"] = Column(
            f"name_{suffix}", says, range="[0, 1], 0.5 = chance", nan="unnamed or untested"
        )
    tested = columns["name_score"][~np.isnan(columns["name_score"])]
    figures = {**found.figures, "name_score_median": float(np.median(tested)) if len(tested) else None}
    return replace(found, columns=columns, schema=tuple(schema.values()), figures=figures)


def _joined(found: Findings, more: Findings) -> Findings:
    schema = {c.name: c for c in (*found.schema, *more.schema)}
    return Findings(
        columns={**found.columns, **more.columns},
        schema=tuple(schema.values()),
        figures={**found.figures, **more.figures},
        tables={**found.tables, **more.tables},
        notes=(*found.notes, *more.notes),
    )
