"""Direct attribution of an image-text similarity to the latents of a dictionary."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cliplens.analysis.parts import Attribution
from cliplens.analysis.paths import DirectPath, Towards, check_towards, direct_path
from cliplens.errors import InputError, MismatchError
from cliplens.hooked import HookedTower
from cliplens.sites import MODALITY_OF, SIDES


def attribute_latents(
    tower: HookedTower,
    inputs: Tensor,
    towards: Float[Tensor, "batch d_embed"],
    dictionary: Any,
    *,
    hook: str | None = None,
) -> Attribution:
    """What each latent contributes to the cosine between each input and a direction of the shared space.

    At `hook_embedding` the embedding is a sum: codes times decoder rows, decoder bias, error; the similarity is each
    one's product with `towards`, exactly. Earlier, at a residual hook, the stream behind the last block is the stream
    there plus what later blocks add; through the final layer norm with its scale held at the value it had (and the
    length of the output likewise) the similarity is again a sum, exact for this input:

        similarity = sum over latents + decoder bias + error + elsewhere + head offset

    `elsewhere` is what reaches the output past the hook, later blocks among it. So only the direct path is attributed:
    a latent at a patch position that acts through attention counts as nothing here, and its effect as `elsewhere`.
    What a latent would do through later blocks, or with norms free, is a question for ablation
    (`run_with_hooks_with_saes`). Held scales are TransformerLens' convention; an attribution can therefore be larger
    than the change an ablation makes.

    Args:
        tower: `clip.vision` or `clip.text`.
        inputs: images, or token ids.
        towards: unit-norm, one per input: the other tower's embedding, `encode(...)[1]`.
        dictionary: a cliplens `Dictionary`, or a SAELens SAE or transcoder that reads raw activations of this tower.
        hook: where it reads and writes; None: as its metadata or provenance says.

    Returns:
        parts [batch, d_sae] in units of cosine similarity, positions summed; rest: "decoder bias", "error" (for a
        transcoder everything its latents do not carry, a skip connection included), "elsewhere",
        "head offset" (norm offsets, projection biases and, behind an attention pooler, what its MLP adds).

    Raises:
        InputError: the hook is none whose activations add up in the output, or the decoder is not affine.
        MismatchError: widths or row counts differ.
    """
    check_towards(towards, inputs, tower)
    reader = SplicedSAE.of(dictionary, tower, hook)
    path, read = direct_path(tower, inputs, reader.writes, reader.reads)
    return attributed(path, read, reader, towards)


@dataclass(frozen=True)
class SplicedSAE:
    """A dictionary as it stands at a hook of one tower."""

    sae: Any
    reads: str
    writes: str
    d_head: int

    @classmethod
    def of(cls, dictionary: Any, tower: HookedTower, hook: str | None) -> "SplicedSAE":
        """The stock SAE in question, and where it reads and writes."""
        side = tower.cfg.side
        provenance = getattr(dictionary, "provenance", None)
        sae = dictionary if isinstance(dictionary, nn.Module) else dictionary.folded(MODALITY_OF[side])
        metadata = getattr(sae.cfg, "metadata", None)
        of_provenance = (s for s in getattr(provenance, "sites", ()) if s.partition(".")[0] == side)
        reads = hook or next(of_provenance, None) or getattr(metadata, "hook_name", None)
        writes = reads if hook else getattr(metadata, "hook_name_out", None) or reads
        if not reads or not writes:
            raise InputError(expected="a dictionary that says where it reads", found="none", fix="give hook=...")
        _check_all_heads(metadata)
        told = None if hook or sae is not dictionary else getattr(metadata, "clip_tower", None)
        own = cls(sae, tower.tower_of(reads, told)[1], tower.tower_of(writes, told)[1], tower.cfg.d_head)
        own.check(tower)
        return own

    def check(self, tower: HookedTower) -> None:
        """Refuse a hook of another width.

        Raises:
            MismatchError: says both.
        """
        cfg = self.sae.cfg
        for hook, width in ((self.reads, cfg.d_in), (self.writes, getattr(cfg, "d_out", cfg.d_in))):
            if tower.width(hook) != width:
                raise MismatchError(
                    expected=f"a hook of width {width}, the dictionary's",
                    found=f"{tower.cfg.side}.{hook} of width {tower.width(hook)}",
                    fix=f"give the hook it was made on, in one of {SIDES}",
                )

    @torch.no_grad()
    def encode(self, rows: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_sae"]:
        """Codes, dense."""
        codes = self.sae.encode(self._shaped(rows))
        return codes.to_dense() if codes.is_sparse else codes

    def decode(self, codes: Float[Tensor, "row d_sae"], rows: Tensor) -> Float[Tensor, "row d_out"]:
        """The reconstruction of the codes; `rows` go through the encoder first, which keeps what some norms need."""
        with torch.no_grad():
            self.sae.encode(self._shaped(rows))
        return self.sae.decode(codes).flatten(1)

    def gradient(self, codes: Tensor, rows: Tensor, directions: Tensor) -> Float[Tensor, "row d_sae"]:
        """What a unit of each latent adds to the reconstruction's product with the directions."""
        with torch.enable_grad():
            codes = codes.detach().clone().requires_grad_()
            rebuilt = self.decode(codes, rows)
            return torch.autograd.grad(rebuilt, codes, directions.to(rebuilt.dtype))[0]

    def _shaped(self, rows: Tensor) -> Tensor:
        own_reshaping = getattr(self.sae, "hook_z_reshaping_mode", False)
        return rows.view(len(rows), -1, self.d_head) if own_reshaping else rows


def attributed(path: DirectPath, read: Tensor, reader: SplicedSAE, towards: Towards) -> Attribution:
    """The shares of latents and of the rest along a direct path."""
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
            found=f"{type(reader.sae).__name__}, whose is not",
            fix="attribute with a dictionary of another architecture",
        )


def _check_all_heads(metadata: Any) -> None:
    if getattr(metadata, "hook_head_index", None) is not None:
        raise InputError(
            expected="a dictionary over all heads of the hook",
            found=f"one over head {metadata.hook_head_index} alone",
            fix="attribute by heads instead (attribute_heads), or splice it in and ablate",
        )


def _products(rows: Tensor, directions: Tensor) -> Tensor:
    return (rows.to(directions.dtype) * directions).sum(-1)


def _per_sample(values: Tensor, sample: Tensor, n: int) -> Float[Tensor, " batch"]:
    return torch.zeros(n, dtype=values.dtype, device=values.device).index_add(0, sample, values)
