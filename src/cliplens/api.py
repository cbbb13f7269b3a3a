"""Define the functions of the package: read_pairs, activations, steer, datasets for SAELens' runner; load and wrap."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliplens import registry
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.models import DTYPES, load, pick_device, wrap
from cliplens.pairs import Pairs, Quoting
from cliplens.pairs import read_pairs as _read_pairs_from
from cliplens.pictures import AS_SEEN, Orientation, PictureOptions
from cliplens.sites import Modalities, Site, sites_of
from cliplens.store import Provider, provider_of

if TYPE_CHECKING:
    import datasets

__all__ = [
    "DTYPES",
    "WORLD_PREFIX",
    "activations",
    "caption_dataset",
    "image_dataset",
    "install",
    "load",
    "parse_world",
    "pick_device",
    "read_pairs",
    "steer",
    "wrap",
]
WORLD_PREFIX = "world:"


def steer(
    target: Any,
    run: "Path | str | Any",
    edit: str,
    *,
    dose: float | int = 1.0,
    site: Site | str | None = None,
    part: str | None = None,
    window: tuple[float, float] | None = None,
    most: int | None = None,
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
        most: maximum number of latents per word, those with the largest mean codes; None means 24.

    Raises:
        InputError: the edit cannot be parsed, or the target has no such site.
        UnknownNameError: no latent represents a word of the edit.
        NoEffectError: the rest of the target does not depend on the site.
    """
    by_words = registry.find("steering", "by_words").load()
    where = {"site": site, "part": part, "window": window}
    context: AbstractContextManager[Any] = by_words(target, run, edit, dose=dose, most=most, **where)
    return context


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
