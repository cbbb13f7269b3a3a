"""Direct attribution of an image-text similarity to the latents of a dictionary."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from cliplens.analysis.parts import Attribution
from cliplens.analysis.paths import DirectPath, Towards, check_towards, direct_path
from cliplens.errors import InputError, MismatchError
from cliplens.hooked import HookedTower
from cliplens.sites import MODALITY_OF, SIDES


def attribute_latents(
    tower: HookedTower,
    inputs: Shaped[Tensor, "input ..."],
    towards: Float[Tensor, "batch d_embed"],
    dictionary: Any,
    *,
    hook: str | None = None,
) -> Attribution:
    """Return the direct contribution of each latent to the cosine between each input and a direction.

    At `hook_embedding`, the embedding is the sum of codes times decoder rows, decoder bias and reconstruction error, so
    the cosine is the sum of their dot products with `towards`. At a residual hook, the final residual stream is the
    stream at the hook plus the outputs of later blocks. With the scale of the final norm and the norm of the output
    held fixed, the cosine is again a sum, exact for this input:

        similarity = sum over latents + decoder bias + error + elsewhere + head offset

    `elsewhere` is everything that does not pass through the hook's direct path, such as the outputs of later blocks. A
    latent at a patch position that acts through attention therefore contributes 0 here. To measure effects through
    later blocks, or with norms recomputed, ablate the latent (`run_with_hooks_with_saes`). Holding scales fixed is
    TransformerLens' convention; an attribution can therefore exceed the effect of an ablation.

    Args:
        tower: `clip.vision` or `clip.text`.
        inputs: images, or token ids.
        towards: one unit-norm direction per input, usually the embedding of its match by the other tower.
        dictionary: a cliplens `Dictionary`, or a SAELens SAE or transcoder trained on raw activations of this tower.
        hook: hook name of the dictionary; by default from its metadata or provenance.

    Returns:
        An attribution with parts [batch, d_sae] in units of cosine similarity, summed over positions. `rest` holds
        "decoder bias", "error" (for a transcoder, everything outside its latents, such as a skip connection),
        "elsewhere" and "head offset" (norm offsets, projection biases, the MLP of an attention pooler).

    Raises:
        InputError: activations at the hook do not add to the output linearly, or the decoder is not affine.
        MismatchError: the hook has not the width of the dictionary, or `towards` not the rows of `inputs`.
    """
    check_towards(towards, inputs, tower)
    reader = SplicedSAE.of(dictionary, tower, hook)
    path, read = direct_path(tower, inputs, reader.writes, reader.reads)
    return attributed(path, read, reader, towards)


@dataclass(frozen=True)
class SplicedSAE:
    """An SAE or transcoder at a hook of one tower."""

    sae: Any
    reads: str
    """Hook name of its input."""
    writes: str
    """Hook name of its output; differs from `reads` for transcoders."""
    d_head: int

    @classmethod
    def of(cls, dictionary: Any, tower: HookedTower, hook: str | None) -> "SplicedSAE":
        """Return the SAE of a dictionary for this tower, with its hook names checked."""
        side = tower.cfg.side
        provenance = getattr(dictionary, "provenance", None)
        sae = dictionary if isinstance(dictionary, nn.Module) else dictionary.folded(MODALITY_OF[side])
        metadata = getattr(sae.cfg, "metadata", None)
        of_provenance = (s for s in getattr(provenance, "sites", ()) if s.partition(".")[0] == side)
        reads = hook or next(of_provenance, None) or getattr(metadata, "hook_name", None)
        writes = reads if hook else getattr(metadata, "hook_name_out", None) or reads
        if not reads or not writes:
            raise InputError(
                expected="a dictionary with a hook name in its metadata",
                found="none",
                fix="pass hook=, for example hook='blocks.10.hook_resid_post'",
            )
        _check_all_heads(metadata)
        told = None if hook or sae is not dictionary else getattr(metadata, "clip_tower", None)
        own = cls(sae, tower.tower_of(reads, told)[1], tower.tower_of(writes, told)[1], tower.cfg.d_head)
        own.check(tower)
        return own

    def check(self, tower: HookedTower) -> None:
        """Check that the hooks have the widths of the dictionary.

        Raises:
            MismatchError: a hook has another width.
        """
        cfg = self.sae.cfg
        for hook, width in ((self.reads, cfg.d_in), (self.writes, getattr(cfg, "d_out", cfg.d_in))):
            if tower.width(hook) != width:
                raise MismatchError(
                    expected=f"a hook of width {width}, that of the dictionary",
                    found=f"{tower.cfg.side}.{hook} of width {tower.width(hook)}",
                    fix=f"pass the hook on which the dictionary was trained, in the right tower of {SIDES}",
                )

    @torch.no_grad()
    def encode(self, rows: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_sae"]:
        """Return the dense codes of rows of activations."""
        codes = self.sae.encode(self._shaped(rows))
        return codes.to_dense() if codes.is_sparse else codes

    def decode(self, codes: Float[Tensor, "row d_sae"], rows: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_out"]:
        """Return the reconstruction from codes. `rows` are encoded first, because some decoders need their norms."""
        with torch.no_grad():
            self.sae.encode(self._shaped(rows))
        return self.sae.decode(codes).flatten(1)

    def gradient(
        self, codes: Float[Tensor, "row d_sae"], rows: Float[Tensor, "row d_in"], directions: Float[Tensor, "row d_out"]
    ) -> Float[Tensor, "row d_sae"]:
        """Return the derivative of the reconstruction's dot product with the directions by each code."""
        with torch.enable_grad():
            codes = codes.detach().clone().requires_grad_()
            rebuilt = self.decode(codes, rows)
            return torch.autograd.grad(rebuilt, codes, directions.to(rebuilt.dtype))[0]

    def _shaped(self, rows: Tensor) -> Tensor:
        own_reshaping = getattr(self.sae, "hook_z_reshaping_mode", False)
        return rows.view(len(rows), -1, self.d_head) if own_reshaping else rows


def attributed(
    path: DirectPath, read: Float[Tensor, "batch pos d_in"], reader: SplicedSAE, towards: Towards
) -> Attribution:
    """Return the contributions of latents and of the rest along a direct path."""
    directions = path.directions(towards)
    counts: Bool[Tensor, "batch pos"] = directions.abs().amax(-1) > 0
    sample = counts.nonzero()[:, 0]
    rows, here, there = read[counts], directions[counts], path.acts[counts]
    codes = reader.encode(rows)
    per_row = reader.gradient(codes, rows, here) * codes
    with torch.no_grad():
        bias = _products(reader.decode(torch.zeros_like(codes), rows), here)
        error = _products(there - reader.decode(codes, rows), here)
        _check_decoder(reader, codes, rows, here, per_row.sum(1) + bias)
    rest = {
        "decoder bias": _per_sample(bias, sample, len(towards)),
        "error": _per_sample(error, sample, len(towards)),
        "elsewhere": path.elsewhere(towards),
        "head offset": path.offset(towards),
    }
    parts = torch.zeros(len(towards), codes.shape[1], dtype=per_row.dtype, device=per_row.device)
    return Attribution(parts.index_add(0, sample, per_row), path.similarity(towards), rest)


def _check_decoder(reader: SplicedSAE, codes: Tensor, rows: Tensor, here: Tensor, summed: Tensor) -> None:
    whole = _products(reader.decode(codes, rows), here)
    if not torch.allclose(whole, summed.to(whole.dtype), rtol=1e-3, atol=1e-4):
        raise InputError(
            expected="a decoder that is affine in the codes",
            found=f"the non-affine decoder of {type(reader.sae).__name__}",
            fix="use a dictionary of another architecture",
        )


def _check_all_heads(metadata: Any) -> None:
    if getattr(metadata, "hook_head_index", None) is not None:
        raise InputError(
            expected="a dictionary over all heads of the hook",
            found=f"one over head {metadata.hook_head_index} alone",
            fix="call attribute_heads, or splice the dictionary in and ablate its latents",
        )


def _products(rows: Tensor, directions: Tensor) -> Tensor:
    return (rows.to(directions.dtype) * directions).sum(-1)


def _per_sample(values: Tensor, sample: Tensor, n: int) -> Float[Tensor, " batch"]:
    return torch.zeros(n, dtype=values.dtype, device=values.device).index_add(0, sample, values)
