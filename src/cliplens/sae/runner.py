"""Make configs for SAELens' runners, which train on a tower as on a language model.

    cfg = runner_config(clip, "text.blocks.1.hook_resid_post", dictionary_config("batchtopk", 512))
    LanguageModelSAETrainingRunner(cfg, override_model=clip.text, override_dataset=caption_dataset(pairs, clip)).run()

A stock runner does not restore random generators and its buffer from a checkpoint, so a resumed run differs from an
uninterrupted one. `cliplens.sae.train` resumes bit for bit.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from sae_lens.config import LanguageModelSAERunnerConfig, LoggingConfig
from sae_lens.multi_sae_training_runner import MultiSAETrainingRunnerConfig
from sae_lens.saes.sae import TrainingSAEConfig

from cliplens.errors import InputError, MismatchError
from cliplens.hooked import HookedCLIP
from cliplens.records import Provenance
from cliplens.sae.configs import threshold_rate, with_metadata
from cliplens.sae.install import tower_on
from cliplens.sae.provenance import write_provenance
from cliplens.sites import Side, Site
from cliplens.store import Cache

if TYPE_CHECKING:
    import datasets

Positions = Literal["all", "special", "patches"]
MODEL_CLASS = "HookedCLIP"
_ONE_POSITION = ("hook_pooled", "hook_projected", "hook_embedding")
_TOKENS = {"all": "all", "special": "cls", "patches": "patches"}
_BUFFERED_BATCHES = 4


def runner_config(
    clip: HookedCLIP,
    site: Site | str,
    sae: TrainingSAEConfig,
    *,
    training_tokens: int = 400_000,
    train_batch_size_tokens: int = 1024,
    positions: Positions = "all",
    cache: Cache | None = None,
    lr: float = 3e-3,
    wandb_project: str | None = None,
    **options: Any,
) -> "LanguageModelSAERunnerConfig[Any]":
    """Return the config of `LanguageModelSAETrainingRunner` for one site of one tower.

    Args:
        clip: the model; pass its tower to the runner as `override_model`.
        site: a joint hook name, "vision.blocks.1.hook_resid_post".
        sae: the training config, see `dictionary_config`.
        training_tokens: rows to train on.
        train_batch_size_tokens: rows per step.
        positions: positions of each sample: "all", "special" (the class token of an image) or "patches" (all except the
            class token). A hook with one position has "all" only.
        cache: a cache to read instead of running the model; pass `unused_dataset(cfg)` to the runner as
            `override_dataset`, which it requires.
        lr: Adam's learning rate.
        wandb_project: log to Weights & Biases under this project.
        options: fields of SAELens' config; they override the choices made here.

    Raises:
        MismatchError: `d_in` of the config is not the width of the site.
        InputError: the stock runner cannot select these positions, or its buffer is smaller than a batch.
    """
    site = site if isinstance(site, Site) else Site.parse(site)
    context = _context(clip, site, cache)
    slice_ = _slice(clip, site, positions, cached=cache is not None)
    common = _common(clip, context, slice_, training_tokens, train_batch_size_tokens, lr, wandb_project, options)
    if cache is not None:
        common.update(use_cached_activations=True, cached_activations_path=str(cache.folder_of(site)))
        _check_rows(len(cache), common)
    steps = training_tokens // train_batch_size_tokens
    prepared = _prepared(clip, site, sae, steps, common["device"], positions, cache)
    return LanguageModelSAERunnerConfig(
        sae=prepared,
        hook_name=site.hook,
        model_class_name=f"{MODEL_CLASS}.{site.side}",
        is_dataset_tokenized=True,
        verbose=False,
        **common,
    )


def multi_runner_config(
    clip: HookedCLIP,
    saes: Mapping[str, tuple[Site | str, TrainingSAEConfig]],
    *,
    training_tokens: int = 400_000,
    train_batch_size_tokens: int = 1024,
    positions: Positions = "all",
    lr: float = 3e-3,
    wandb_project: str | None = None,
    **options: Any,
) -> MultiSAETrainingRunnerConfig:
    """Return the config of `MultiSAETrainingRunner` for several dictionaries of one tower, with one forward pass.

    Args:
        clip: the model; pass its tower to the runner as `override_model`.
        saes: site and training config by name. All sites must be in one tower and have the same number of rows.
        training_tokens: rows to train on.
        train_batch_size_tokens: rows per step.
        positions: see `runner_config`.
        lr: Adam's learning rate.
        wandb_project: log to Weights & Biases under this project.
        options: fields of SAELens' config; they override the choices made here.

    Raises:
        InputError: sites of two towers, or with different numbers of rows, which SAELens cannot combine.
    """
    sites = {name: s if isinstance(s, Site) else Site.parse(s) for name, (s, _) in saes.items()}
    side = _one_side(sites)
    first = next(iter(sites.values()))
    context, slice_ = _context(clip, first, None), _slice(clip, first, positions, cached=False)
    common = _common(clip, context, slice_, training_tokens, train_batch_size_tokens, lr, wandb_project, options)
    steps = training_tokens // train_batch_size_tokens
    device = common["device"]
    return MultiSAETrainingRunnerConfig(
        saes={n: _prepared(clip, sites[n], cfg, steps, device, positions, None) for n, (_, cfg) in saes.items()},
        hook_names={name: site.hook for name, site in sites.items()},
        model_class_name=f"{MODEL_CLASS}.{side}",
        **common,
    )


def unused_dataset(cfg: "LanguageModelSAERunnerConfig[Any]") -> "datasets.Dataset":
    """Return a dataset of one row. The stock runner requires a dataset but does not read it with a cache."""
    import datasets

    return datasets.Dataset.from_dict({"tokens": [[0] * cfg.context_size]})


def _common(
    clip: HookedCLIP,
    context: int,
    slice_: tuple[int | None, ...],
    tokens: int,
    batch: int,
    lr: float,
    project: str | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the fields both runners have."""
    steps = tokens // batch
    rows = len(range(context)[slice(*slice_)])
    fields = {
        "model_name": _model_name(clip),
        "context_size": context,
        "seqpos_slice": slice_,
        "prepend_bos": False,
        "sequence_separator_token": None,
        "dataset_trust_remote_code": False,
        "n_batches_in_buffer": -(-_BUFFERED_BATCHES * batch // rows),
        "training_tokens": tokens,
        "train_batch_size_tokens": batch,
        "lr": lr,
        "lr_decay_steps": steps // 5,
        "dead_feature_window": min(1000, max(20, steps // 8)),
        "n_batches_for_norm_estimate": min(1000, max(10, steps // 20)),
        "device": str(clip.device),
        "checkpoint_path": None,
        "output_path": None,
        "logger": LoggingConfig(log_to_wandb=project is not None, wandb_project=project or "cliplens"),
        **options,
    }
    _check_buffer(fields["n_batches_in_buffer"], rows, batch)
    return fields


def _prepared(
    clip: HookedCLIP,
    site: Site,
    sae: TrainingSAEConfig,
    steps: int,
    device: str,
    positions: Positions,
    cache: Cache | None,
) -> TrainingSAEConfig:
    width = clip.width(site)
    if sae.d_in != width:
        raise MismatchError(
            expected=f"d_in={width}, the width of {site}",
            found=f"d_in={sae.d_in} in the {sae.architecture()} config",
            fix=f"make it with dictionary_config({sae.architecture()!r}, {width})",
        )
    changes: dict[str, Any] = {"device": device, **threshold_rate(sae, steps)}
    if site.hook.endswith("hook_z"):
        changes["reshape_activations"] = "hook_z"
    prepared = with_metadata(sae, **changes)
    token = _TOKENS[positions] if cache is None else cache.plan.token
    write_provenance(prepared.metadata, Provenance(clip.identity, (str(site),), width, token, centred=False))
    return prepared


def _context(clip: HookedCLIP, site: Site, cache: Cache | None) -> int:
    if cache is not None:
        return int(cache.site(site).schema.context_size)
    return int(tower_on(clip, site.side).cfg.n_ctx)


def _slice(clip: HookedCLIP, site: Site, positions: Positions, *, cached: bool) -> tuple[int | None, ...]:
    if positions == "all":
        return (None,)
    if cached or site.hook in _ONE_POSITION or site.side == "text":
        why = "a cache" if cached else f"{site}"
        raise InputError(
            expected=f"positions='all' for {why}",
            found=f"positions={positions!r}",
            fix="harvest with this token choice, or use cliplens.activations(token=...) and cliplens.sae.train",
        )
    assert clip.vision is not None  # `_context` raised an error for a model without this tower.
    if positions != "special":
        return (clip.vision.n_special, None)
    if not clip.vision.has_class_token:
        raise InputError(
            expected="a vision tower with a class token for positions='special'",
            found=f"{clip.vision.cfg.model_name or clip.vision.cfg.family}, which pools its patches",
            fix="pass positions='patches' or positions='all'",
        )
    return (0, 1)


def _check_buffer(batches: int, rows: int, batch: int) -> None:
    if batches * rows < batch:
        raise InputError(
            expected=f"n_batches_in_buffer of at least {-(-batch // rows)}: SAELens counts a buffer of"
            f" n_batches_in_buffer x {rows} positions in rows, and a batch of {batch} must fit",
            found=f"n_batches_in_buffer={batches}",
            fix="raise n_batches_in_buffer, lower train_batch_size_tokens, or leave n_batches_in_buffer out",
        )


def _check_rows(pairs: int, common: Mapping[str, Any]) -> None:
    prompts = common.get("store_batch_size_prompts", 32)
    if pairs < prompts:
        raise InputError(
            expected=f"at least store_batch_size_prompts={prompts} pairs in the cache",
            found=f"{pairs}",
            fix="harvest more pairs, or lower store_batch_size_prompts",
        )


def _one_side(sites: Mapping[str, Site]) -> Side:
    kinds = {(site.side, site.hook in _ONE_POSITION) for site in sites.values()}
    if len(kinds) != 1:
        raise InputError(
            expected="sites of one tower with equally many rows per sample",
            found=", ".join(str(site) for site in sites.values()) or "none",
            fix="run once per tower, and train pooled hooks and hooks with positions in separate runs",
        )
    return next(iter(kinds))[0]


def _model_name(clip: HookedCLIP) -> str:
    """Return the model name for the loading function that `install` adds."""
    name, tag = clip.identity.name, clip.identity.pretrained
    return name if tag is None else f"{name}@{tag}"
