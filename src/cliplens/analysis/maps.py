"""Maps of an image and a caption: a number per patch and per token, by attention, by relevance, or of a latent.

| method | number of a position | source |
|---|---|---|
| attention | attention that the read position pays to it in the last block, mean over heads | |
| rollout | attention of all blocks multiplied, skip connections as attention to oneself | arXiv 2005.00928 |
| relevance | attention times its positive gradient of the similarity, added up over blocks | arXiv 2103.15679 |

Attention and rollout of an image do not depend on the caption. Relevance does. `masking_test` measures whether the
marked patches matter more than random ones; a map that does not pass it explains nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.analysis.latents import SplicedSAE
from cliplens.analysis.paths import check_towards
from cliplens.errors import InputError, unknown_name
from cliplens.hooked import HookedCLIP, HookedTower, check_open
from cliplens.shapes import TowerInputs

Method = Literal["relevance", "attention", "rollout"]
METHODS: tuple[str, ...] = get_args(Method)
Positions = Float[Tensor, "batch pos"]


def position_map(
    tower: HookedTower,
    inputs: TowerInputs,
    towards: Float[Tensor, "batch d_embed"] | None = None,
    *,
    method: str = "relevance",
    first_block: int = 0,
) -> Positions:
    """Return a number per position of each input, for the position that the tower reads its output from.

    Towers that average positions, or pool them by attention, are read accordingly.

    Args:
        tower: `clip.vision` or `clip.text`.
        inputs: images, or token ids.
        towards: for "relevance", one unit-norm direction per input, usually the embedding of its match by the other
            tower; the other methods ignore it.
        method: "relevance", "attention" or "rollout".
        first_block: count blocks from this one on ("attention" uses the last one only); negative numbers count from the
            end. The authors of "relevance" use -1 for CLIP.

    Returns:
        Numbers of at least 0, larger where the position counts more. Their unit differs between methods and inputs.

    Raises:
        UnknownNameError: there is no such method.
        InputError: the tower has no hooks inside its blocks, no such block, or "relevance" is asked without `towards`.
        MismatchError: `towards` has another number of rows than `inputs`.
    """
    check_open(tower)
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    given = tower.checked(inputs)
    if method == "relevance":
        if towards is None:
            raise InputError(
                expected="a direction per input for method='relevance'",
                found="none",
                fix="pass towards=clip.encode_text(tokens, normalize=True), or method='attention'",
            )
        check_towards(towards, given, tower)
    patterns, pooling, similarity = _patterns(tower, given, towards if method == "relevance" else None)
    if similarity is None:
        weights = [pattern.mean(1) for pattern in patterns]
        read = None if pooling is None else pooling.mean((1, 2)).unsqueeze(1)
    else:
        wanted = [*patterns, *([] if pooling is None else [pooling])]
        slopes = torch.autograd.grad(similarity.sum(), wanted, allow_unused=True)
        raised = [
            torch.zeros_like(p) if s is None else (p * s).clamp_min(0) for p, s in zip(wanted, slopes, strict=True)
        ]
        weights = [one.detach().mean(1) for one in raised[: len(patterns)]]
        read = None if pooling is None else raised[-1].detach().mean((1, 2)).unsqueeze(1)
    kept = weights[-1:] if method == "attention" else weights[_block(tower, first_block) :]
    spread = kept[0] if method == "attention" else _through(kept, 0.5 if method == "rollout" else 1.0)
    if read is not None:
        return read.squeeze(1) if method == "attention" else (read @ spread).squeeze(1)
    return _read_rows(tower, given, spread)


def latent_map(
    tower: HookedTower,
    inputs: TowerInputs,
    dictionary: Any,
    latents: list[int],
    towards: Float[Tensor, "batch d_embed"] | None = None,
    *,
    hook: str | None = None,
) -> Float[Tensor, "batch latent pos"]:
    """Return the activation of latents at every position; with `towards`, their effect on the similarity there.

    The effect is the activation times the derivative of the cosine with `towards` by it, through the rest of the tower,
    with the reconstruction error of the dictionary added (attribution patching). It is positive where the latent
    brings the input nearer to `towards`, in units of cosine similarity, and a linear estimate of ablating the latent
    at that position alone.

    Args:
        tower: `clip.vision` or `clip.text`.
        inputs: images, or token ids.
        dictionary: a cliplens `Dictionary`, or a SAELens SAE of this tower.
        latents: numbers of latents.
        towards: one unit-norm direction per input; None gives plain activations.
        hook: hook name of the dictionary; by default from its metadata or provenance.

    Raises:
        InputError: the hook has one position only (hook_embedding), a latent does not exist, or the dictionary is a
            transcoder.
        MismatchError: the hook has not the width of the dictionary, or `towards` not the rows of `inputs`.
    """
    reader = SplicedSAE.of(dictionary, tower, hook)
    given = tower.checked(inputs)
    if reader.reads != reader.writes:
        raise InputError(expected="a dictionary of one hook", found="a transcoder", fix="pass an SAE")
    if towards is not None:
        check_towards(towards, given, tower)
    codes: dict[str, Tensor] = {}

    def splice(acts: Tensor, hook: Any) -> Tensor:
        rows = acts.flatten(2).flatten(0, 1)
        code = reader.encode(rows.detach()).detach().requires_grad_(towards is not None)
        codes["all"] = code
        rebuilt = reader.decode(code, rows.detach())
        return (rebuilt + (rows - rebuilt).detach()).view_as(acts)

    with torch.set_grad_enabled(towards is not None), tower.hooks([(reader.reads, splice)]):
        _, embedding = tower.encode(given)
    code = codes["all"]
    missing = [k for k in latents if not 0 <= k < code.shape[1]]
    if missing:
        raise InputError(
            expected=f"latents from 0 to {code.shape[1] - 1}", found=str(missing[0]), fix="pass a number of that range"
        )
    shaped = code.detach().view(len(given), -1, code.shape[1])
    if shaped.shape[1] == 1:
        raise InputError(
            expected="a hook with one activation per patch or token",
            found=f"{reader.reads}, which has one per input",
            fix="use a dictionary of a residual hook, such as blocks.9.hook_resid_post",
        )
    if towards is not None:
        (slope,) = torch.autograd.grad((embedding * towards).sum(), code)
        shaped = shaped * slope.view_as(shaped)
    return shaped[:, :, latents].transpose(1, 2)


@dataclass(frozen=True)
class MaskingTest:
    """The drop of similarity when marked patches are greyed, and the same for random patches."""

    share: float
    """Share of the patches that were greyed."""
    marked: float
    """Drop of the cosine for the patches that the map marks most; negative if the similarity rises."""
    random: float
    """Mean drop for as many random patches."""
    low: float
    high: float
    """Range of the middle 95 % of the random draws."""

    @property
    def passed(self) -> bool:
        """Whether the drop is larger than that of 97.5 % of the random draws."""
        return self.marked > self.high

    def __str__(self) -> str:
        verdict = "more than" if self.passed else "no more than"
        return (
            f"Greying the {self.share:.0%} of patches marked most lowers the similarity by {self.marked:.3f}, {verdict}"
            f" random patches: {self.random:.3f} ({self.low:.3f} to {self.high:.3f})"
        )


@torch.no_grad()
def masking_test(
    clip: HookedCLIP,
    image: Float[Tensor, "3 height width"],
    tokens: Int[Tensor, " context"],
    grid: Float[Tensor, "row column"],
    *,
    share: float = 0.2,
    draws: int = 40,
    seed: int = 0,
) -> MaskingTest:
    """Measure whether the patches that a map marks matter for the similarity more than random patches do.

    Args:
        clip: the model.
        image: one preprocessed image.
        tokens: token ids of the caption.
        grid: the map of the image.
        share: share of the patches to replace by the mean colour of the image.
        draws: number of random choices of as many patches, the control.
        seed: seed of the control.
    """
    rows, columns = grid.shape
    count = max(1, round(share * rows * columns))
    generator = torch.Generator().manual_seed(seed)
    chosen = [grid.flatten().argsort(descending=True)[:count].cpu()]
    chosen += [torch.randperm(rows * columns, generator=generator)[:count] for _ in range(draws)]
    grey = image.mean((1, 2), keepdim=True)
    images = [image]
    for cells in chosen:
        mask = torch.zeros(rows * columns)
        mask[cells] = 1
        whole = F.interpolate(mask.view(1, 1, rows, columns), size=image.shape[1:], mode="nearest")[0].to(image)
        images.append(image * (1 - whole) + grey * whole)
    read = clip.encode_text(tokens[None], normalize=True)
    plain, *after = (clip.encode_image(torch.stack(images), normalize=True) @ read[0]).tolist()
    drops = torch.tensor([plain - one for one in after[1:]], dtype=torch.float64)
    low, high = drops.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return MaskingTest(count / (rows * columns), plain - after[0], float(drops.mean()), low, high)


def _patterns(
    tower: HookedTower, inputs: Tensor, towards: Tensor | None
) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
    """Return the attention of each block, that of a pooler (if any), and the similarity, with gradients if asked."""
    names = [name for name in tower.hook_dict if name.endswith("hook_pattern")]
    got: dict[str, Tensor] = {}

    def keep(pattern: Tensor, hook: Any) -> Tensor:
        got[str(hook.name)] = pattern if pattern.requires_grad or towards is None else pattern.requires_grad_()
        return got[str(hook.name)]

    hooks: list[tuple[Any, Callable[..., Tensor]]] = [(name, keep) for name in names]
    with torch.set_grad_enabled(towards is not None), tower.hooks(hooks):
        _, embedding = tower.encode(inputs)
    blocks = [got[f"blocks.{layer}.attn.hook_pattern"] for layer in range(tower.cfg.n_layers)]
    pooler = [got[name] for name in names if not name.startswith("blocks.")]
    similarity = None if towards is None else (embedding.flatten(1) * towards).sum(-1)
    return blocks, pooler[-1] if pooler else None, similarity


def _through(weights: list[Tensor], own: float) -> Float[Tensor, "batch query key"]:
    """Return the product over blocks of `own` times (identity + weight): attention with the skip connections."""
    eye = torch.eye(weights[0].shape[-1], dtype=weights[0].dtype, device=weights[0].device)
    spread = eye.expand(len(weights[0]), -1, -1)
    for weight in weights:
        spread = own * (spread + weight @ spread)
    return spread


def _read_rows(tower: HookedTower, inputs: Tensor, spread: Float[Tensor, "batch query key"]) -> Positions:
    """Return the row of the position that the tower pools; the mean of the rows of all that it pools."""
    like = torch.zeros(len(inputs), spread.shape[1], tower.cfg.d_model, dtype=tower.cfg.dtype)
    stream = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like).to(inputs.device)
    with torch.enable_grad(), tower.evaluating():
        stream.requires_grad_()
        (slope,) = torch.autograd.grad(tower.pool(stream, inputs).pow(2).sum(), stream)
    pooled = (slope.abs().amax(-1) > 0).to(spread.dtype)
    return torch.einsum("bq,bqk->bk", pooled / pooled.sum(1, keepdim=True), spread)


def _block(tower: HookedTower, first: int) -> int:
    n = tower.cfg.n_layers
    if not -n <= first < n:
        raise InputError(
            expected=f"first_block between {-n} and {n - 1}",
            found=str(first),
            fix="count blocks from 0, or from the end",
        )
    return first % n
