"""Define the functions of the package: load, wrap, read_pairs, activations, steer, and datasets for SAELens' runner."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from cliplens import registry
from cliplens.contracts import LoadedModel, ModelSource
from cliplens.errors import CliplensError, InputError, UnknownNameError, unknown_name
from cliplens.hooked import (
    HookedCLIP,
    HookedTextTower,
    HookedVisionTower,
    attribute,
    check_weights,
    identity_of,
    open_tower,
    unwrapped,
)
from cliplens.pairs import Pairs, Quoting
from cliplens.pairs import read_pairs as _read_pairs_from
from cliplens.pictures import AS_SEEN, Orientation, PictureOptions
from cliplens.sites import Modalities, Site, sites_of
from cliplens.store import Provider, provider_of

if TYPE_CHECKING:
    import datasets

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
WORLD_PREFIX = "world:"


def load(
    name: str,
    pretrained: str | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str = "float32",
    check: bool = True,
) -> HookedCLIP:
    """Load a CLIP-like model with hooks on both towers.

    Args:
        name: an open_clip name ("ViT-B-32"), `local-dir:/path` with an open_clip config, or the embedded "world",
            "world-plain" or "emoji". `cliplens models` lists all known names.
        pretrained: a pretrained tag of the model ("laion2b_s34b_b79k"), which may be downloaded, or a local weights
            file.
        device: the device; by default the first available of cuda, mps and cpu.
        dtype: "float32", "float64", "float16" or "bfloat16".
        check: whether to compare hooked and unhooked outputs of unknown model classes; see `wrap`.

    Raises:
        UnknownNameError: the model, tag or dtype is unknown; similar names are listed.

    >>> clip = load("world")
    >>> clip.vision.cfg.n_layers, clip.vision.cfg.d_model
    (3, 96)
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    if not isinstance(name, str) or not name:
        raise InputError(
            expected="the name of a model, such as 'ViT-B-32'",
            found=repr(name),
            fix="pass a name of `cliplens models`, hf:owner/name, or local-dir:/path; wrap a model with cliplens.wrap",
        )
    sources = [source for _, source in registry.made("models", ModelSource)]
    for source in sources:
        if source.knows(name):
            return _hooked(
                source.load(name, pretrained, device=pick_device(device), dtype=DTYPES[dtype]),
                check,
                built_by_name=True,
            )
    if "/" in name or Path(name).exists():
        place = f"local-dir:{name}, or hf:{name}" if Path(name).exists() else f"hf:{name}"
        raise UnknownNameError(
            expected="the name of a model, or a place that says what it is",
            found=repr(name),
            fix=f"write {place} (hf: is a repository or folder of transformers, local-dir: a folder of open_clip)",
        )
    raise unknown_name("model", name, [card.name for source in sources for card in source.models()])


def wrap(
    model: nn.Module,
    *,
    preprocess: Callable[[Image.Image], Tensor] | None = None,
    tokenizer: Callable[[Sequence[str]], Tensor] | None = None,
    check: bool = True,
) -> HookedCLIP:
    """Add hooks to an existing model object. The object is never changed.

    open_clip and timm models share their weights with the towers, so later changes of the weights are seen. The weights
    of a transformers model are copied (open_clip packs q, k and v, transformers does not), so wrap it again after a
    change. `torch.compile`, DataParallel, DistributedDataParallel and `PeftModel` wrappers are removed first.

    Args:
        model: an open_clip model, or any model that an installed source recognises.
        preprocess: function from a picture to Float[Tensor, "3 height width"]; by default the one that the model's
            configuration describes.
        tokenizer: function from captions to Int64[Tensor, "caption context"]; by default that of the model.
        check: compare hooked and unhooked outputs once on two random inputs, which finds a subclass, a replaced method
            or part, a LoRA, or a forward hook. Models that are put together alike are compared once.

    Raises:
        InputError: no installed source recognises the model.
        MismatchError: hooked and unhooked outputs differ; the message names the first block that differs, and why.
    """
    model = unwrapped(model)
    check_weights(model)
    sources = [source for _, source in registry.made("models", ModelSource)]
    for source in sources:
        loaded = source.adopt(model)
        if loaded is not None:
            return _hooked(_with_own(loaded, preprocess, tokenizer), check)
    inside = _recognised_inside(model, sources)
    raise InputError(
        expected="a model that an installed source recognises",
        found=f"{type(model).__module__}.{type(model).__qualname__}",
        fix=f"wrap the model inside it: cliplens.wrap({attribute(inside)})"
        if inside
        else "wrap an open_clip model, or write a ModelSource for it (CONTRIBUTING.md, 'Adding a tower')",
    )


def steer(
    target: Any,
    run: "Path | str | Any",
    edit: str,
    *,
    dose: float | int = 1.0,
    site: Site | str | None = None,
    part: str | None = None,
    window: tuple[float, float] | None = None,
) -> AbstractContextManager[Any]:
    """Return a context in which a model is steered with the dictionary and the names of a run.

        with cliplens.steer(pipeline, "run/", "red->blue", dose=2) as movement:
            pipeline("a red circle")

    Args:
        target: a `HookedCLIP`, a diffusers pipeline, a CLIP encoder or a multimodal language model of transformers.
        run: the folder of a finished run, or an opened run.
        edit: an edit as in `cliplens steer --edit`; without a strength, as in "red->blue", it is one typical level.
        dose: factor on the strength of the edit; 0 changes nothing.
        site: the site to steer; by default the sites on which the run's dictionary was trained.
        part: the part of a pipeline, such as "text_encoder_2".
        window: the part of the denoising to steer, from 0 (noise) to 1 (picture).

    Raises:
        InputError: the edit cannot be parsed, or the target has no such site.
        UnknownNameError: no latent represents a word of the edit.
        NoEffectError: the rest of the target does not depend on the site.
    """
    by_words = registry.find("steering", "by_words").load()
    context: AbstractContextManager[Any] = by_words(target, run, edit, dose=dose, site=site, part=part, window=window)
    return context


def _recognised_inside(model: nn.Module, sources: Sequence[ModelSource]) -> str | None:
    """Return the name of the outermost module inside a model that a source recognises."""
    names = sorted((name for name, _ in model.named_modules() if name), key=lambda name: name.count("."))
    for name in names:
        try:
            if any(source.adopt(model.get_submodule(name)) is not None for source in sources):
                return name
        except CliplensError:
            return name  # a source knows its class, and says what is wrong with it when asked
    return None


def _with_own(
    loaded: LoadedModel,
    preprocess: Callable[[Image.Image], Tensor] | None,
    tokenizer: Callable[[Sequence[str]], Tensor] | None,
) -> LoadedModel:
    """Replace preprocess and tokenizer of a model by the user's, and update its identity."""
    if preprocess is None and tokenizer is None:
        return loaded
    own = replace(loaded, preprocess=preprocess or loaded.preprocess, tokenizer=tokenizer or loaded.tokenizer)
    identity = identity_of(
        own.module,
        name=own.identity.name,
        pretrained=own.identity.pretrained,
        preprocess=own.preprocess,
        tokenizer=own.tokenizer,
    )
    return replace(own, identity=identity)


def _hooked(loaded: LoadedModel, check: bool, *, built_by_name: bool = False) -> HookedCLIP:
    vision = open_tower(loaded.module, "vision", check=check, built_by_name=built_by_name)
    text = open_tower(loaded.module, "text", check=check, built_by_name=built_by_name)
    assert vision is None or isinstance(vision, HookedVisionTower)
    assert text is None or isinstance(text, HookedTextTower)
    clip = HookedCLIP(
        loaded.module,
        vision=vision,
        text=text,
        preprocess=loaded.preprocess,
        tokenizer=loaded.tokenizer,
        identity=loaded.identity,
    )
    if check:
        clip.prove()
    return clip


def pick_device(device: str | torch.device | None) -> torch.device:
    """Return the given device, or else the first available of cuda (one per process under torchrun), mps and cpu."""
    if device is not None:
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def read_pairs(
    source: "str | Path | Iterable[Any]",
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    id_column: str | None = None,
    image_root: str | Path | None = None,
    modalities: Modalities = "both",
    delimiter: str | None = None,
    quoting: Quoting = "auto",
    background: str = AS_SEEN.background,
    orientation: Orientation = AS_SEEN.orientation,
    max_pixels: int = AS_SEEN.max_pixels,
) -> Pairs:
    """Read pairs of images and captions. Images are opened only when they are used.

    Args:
        source: a CSV or TSV file, JSONL, COCO captions JSON, a folder of images with .txt captions, WebDataset tars
            (path or glob), parquet or a `save_to_disk` folder, "hf:owner/name@split" (downloads), or "world:N" for N
            pairs of the embedded world ("world:N:SEED" for other pairs), or "emoji:noto" for real drawings. Also a
            `datasets.Dataset`, a pandas frame, or a list of (image, caption).
        image_column: column of images; by default a column with a usual name.
        caption_column: column of captions; by default a column with a usual name.
        id_column: column of ids; by default ids are made from file names and rows.
        image_root: folder to which image paths are relative; by default that of the file.
        modalities: "image" accepts data without captions, "text" data without images.
        delimiter: character between the cells of a table, or "tab"; by default it is detected.
        quoting: "auto" reads unclosed quotation marks as text, "minimal" quarantines such rows, "none" reads all
            quotation marks as text.
        background: colour behind transparent pixels; "drop" ignores transparency, as open_clip does.
        orientation: "upright" rotates pictures as their EXIF data say; "stored" does not, as in open_clip.
        max_pixels: pictures with more pixels are quarantined.

    Raises:
        PairsError: the source cannot be read as pairs.

    >>> pairs = read_pairs("world:100")
    >>> len(pairs), pairs[0].image.size
    (100, (48, 48))
    """
    opening = PictureOptions(background, orientation, max_pixels)
    if isinstance(source, str) and source.startswith(WORLD_PREFIX):
        from cliplens.world import world_pairs

        given: dict[str, object] = {
            "image_column": image_column,
            "caption_column": caption_column,
            "id_column": id_column,
        }
        given |= {"image_root": image_root, "delimiter": delimiter}
        unread = [f"{name} (--{name.replace('_', '-')})" for name, value in given.items() if value is not None]
        if unread:
            raise InputError(
                expected="options that pairs of the embedded world read",
                found=", ".join(unread),
                fix="leave them out: these pairs are drawn, not read",
            )
        count, seed = parse_world(source)
        return world_pairs(count, seed=seed)
    return _read_pairs_from(
        source,
        image_column=image_column,
        caption_column=caption_column,
        id_column=id_column,
        image_root=None if image_root is None else Path(image_root),
        modalities=modalities,
        delimiter=delimiter,
        quoting=quoting,
        opening=opening,
    )


def parse_world(path: str) -> tuple[int, int]:
    """Return the number of pairs and the seed of a path "world:N" or "world:N:SEED".

    Raises:
        InputError: the path has another form, or N is 0.

    >>> parse_world("world:512:3")
    (512, 3)
    """
    parts = path.removeprefix(WORLD_PREFIX).split(":")
    if len(parts) > 2 or not all(p.isascii() and p.isdigit() for p in parts) or not int(parts[0]):
        raise InputError(
            expected="world:N or world:N:SEED, with N of 1 or more",
            found=repr(path),
            fix="pass for example world:20480",
        )
    return int(parts[0]), int(parts[1]) if len(parts) > 1 else 0


def activations(
    clip: HookedCLIP,
    pairs: Pairs,
    hook: Site | str = "hook_embedding",
    *,
    modalities: Modalities = "both",
    centre: bool = True,
    batch_size: int = 4096,
    token: str = "auto",
    seed: int = 0,
) -> Provider:
    """Return endless shuffled batches of activation rows, the `data_provider` of `sae_lens.SAETrainer`.

    The order of the rows depends only on the seed. Pairs that cannot be used are left out.

    Args:
        clip: the model.
        pairs: images and captions (see `read_pairs`).
        hook: a hook name for both towers ("hook_embedding"), or a site of one ("vision.blocks.9.hook_resid_post").
        modalities: rows of "both" modalities for one dictionary, or only of "image" or "text".
        centre: subtract each modality's mean. The means are in `provider.means` and are saved with the dictionary.
        batch_size: rows per batch, SAELens' `train_batch_size_samples`.
        token: position of a sample to use: "auto" (CLS of images, EOT of captions), "cls", "eot", "mean" over
            positions, or "patches" or "all" (one row per position).
        seed: seed of the shuffle.

    Raises:
        MismatchError: the hook has different widths in the two towers.
        UnknownNameError: there is no such hook; similar names are listed.
    """
    if not isinstance(pairs, Pairs) or not isinstance(clip, HookedCLIP):
        raise InputError(
            expected="a model of cliplens.load or cliplens.wrap, and pairs of cliplens.read_pairs",
            found=f"a {type(clip).__name__} and a {type(pairs).__name__}",
            fix="pass activations(clip, cliplens.read_pairs(...), hook=...)",
        )
    return provider_of(
        clip, pairs, sites_of(hook, modalities), token=token, centre=centre, batch_size=batch_size, seed=seed
    )


def caption_dataset(pairs: Pairs, clip: HookedCLIP) -> "datasets.Dataset":
    """Return the captions as a tokenised dataset for `LanguageModelSAETrainingRunner(override_model=clip.text)`."""
    from cliplens.store import caption_dataset as build

    return build(pairs, clip)


def image_dataset(pairs: Pairs, clip: HookedCLIP) -> "datasets.Dataset":
    """Return the images as image-index tokens for `LanguageModelSAETrainingRunner(override_model=clip.vision)`."""
    from cliplens.store import image_dataset as build

    return build(pairs, clip)


def install() -> None:
    """Register `model_class_name="HookedCLIP"` with SAELens' model loading. Importing cliplens does not do this."""
    from cliplens.sae import install as install_in_sae_lens

    install_in_sae_lens(load)
