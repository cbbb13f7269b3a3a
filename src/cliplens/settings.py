"""Define the settings of a run. The command line makes its options from them, and run.toml records them."""

import math
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from os import PathLike
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cliplens.errors import InputError, unknown_name
from cliplens.sites import SIDES, Side, Site, sites_of

_OF_A_MODEL = ("pretrained", "token", "dtype", "autocast", "compile")
"""Options that mean nothing without a model."""
DATA, MODEL, DICTIONARY, MACHINE = "Data", "Model", "Dictionary", "Machine"


def _option(default: Any, about: str, group: str, low: int | None = None, high: int | None = None) -> Any:
    return field(default=default, metadata={"help": about, "group": group, "min": low, "max": high})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run. The help text of each field documents it (`cliplens run --help`)."""

    pairs: str = field(
        default="",
        metadata={
            "group": DATA,
            "help": "Images with captions: a CSV, TSV, JSONL, COCO JSON or parquet file, WebDataset tars, a folder of "
            "images with .txt captions, hf:owner/name@split, world:N for N pairs of the embedded world, or emoji:noto "
            "for real drawings.",
        },
    )
    embeddings: list[str] | None = _option(  # noqa: RUF009
        None,
        "Files of embeddings in place of a model: image.npy text.npy, or one .npz, .parquet or .safetensors file.",
        DATA,
    )
    captions: str | None = _option(
        None, "Captions of the embeddings: a .txt file with one caption per line, or a table.", DATA
    )
    images: str | None = _option(None, "Folder with the images of the embeddings, in the order of file names.", DATA)
    image_column: str | None = _option(None, "Column of image paths; default: a column with a usual name.", DATA)
    caption_column: str | None = _option(None, "Column of captions; default: a column with a usual name.", DATA)
    id_column: str | None = _option(None, "Column of unique pair ids; default: image file names.", DATA)
    image_root: str | None = _option(None, "Folder to which image paths are relative; default: that of --pairs.", DATA)
    delimiter: str | None = _option(
        None, "Character between the cells of a table, such as ';', or tab; default: detected.", DATA
    )
    quoting: Literal["auto", "minimal", "none"] | None = _option(
        None,
        "Quotation marks in a table: auto (default) reads unclosed ones as text, minimal quarantines such rows, none "
        "reads all as text.",
        DATA,
    )
    background: str | None = _option(
        None, "Colour behind transparent pixels, such as white (default); drop ignores transparency.", DATA
    )
    orientation: Literal["upright", "stored"] | None = _option(
        None, "Rotate images as their EXIF data say (upright, default), or keep them as stored.", DATA
    )
    max_pixels: int | None = _option(None, "Quarantine images with more pixels; default: 134 million.", DATA, 1)
    max_bad: float = _option(0.01, "Stop the run if a larger fraction of pairs is unreadable.", DATA, 0, 1)
    held_out: float = _option(
        0.2,
        "Fraction of pairs to hold out from training, above 0 and below 1; scores and names use these pairs.",
        DATA,
    )

    model: str = _option(
        "world",
        "An open_clip name such as ViT-B-32, local-dir:/path, or the embedded world, world-plain or emoji. "
        "`cliplens models` lists all.",
        MODEL,
    )
    pretrained: str | None = _option(
        None, "Pretrained tag of the model, such as laion2b_s34b_b79k (downloads), or a local weights file.", MODEL
    )
    hook: str = _option(
        "hook_embedding",
        "Hook name for both towers (hook_embedding), or a site of one (vision.blocks.9.hook_resid_post).",
        MODEL,
    )
    tower: Literal["both", "vision", "text"] = _option("both", "Train on activations of both towers or one.", MODEL)
    token: str = _option(
        "auto",
        "Position of a sample to use: cls, eot, mean over positions, patches or all (one row each); auto is CLS of "
        "images and EOT of captions.",
        MODEL,
    )

    sae: str | None = _option(
        None,
        "An existing dictionary, as a SAELens folder, a checkpoint file or hf:owner/name/folder, in place of training "
        "one. All pairs are scored.",
        DICTIONARY,
    )
    layout: str | None = _option(
        None,
        "Layout of the checkpoint in --sae if it is not detected: plain, openai, ... (see docs/dictionaries.md).",
        DICTIONARY,
    )
    architecture: str = _option(
        "batchtopk", "SAELens training architecture: batchtopk, topk, standard, gated, jumprelu and others.", DICTIONARY
    )
    d_sae: int | None = _option(
        None,
        "Number of latents; default: four times the width of the hook, or fewer on few rows (one per 20).",
        DICTIONARY,
        1,
    )
    k: int | None = _option(
        None, "Active latents per sample (top-k architectures); default: d_sae / 32, from 4 to 32.", DICTIONARY, 1
    )
    sparsity: float | None = _option(
        None,
        "Coefficient of the sparsity penalty (standard, gated: l1; jumprelu: l0); default by width.",
        DICTIONARY,
        0,
    )
    samples: int | None = _option(
        None,
        "Number of rows to train on; default: 400 steps, or 20 passes over the rows if that is more.",
        DICTIONARY,
        1,
    )
    batch_size: int = _option(1024, "Rows per training step.", DICTIONARY, 1)
    lr: float = _option(1e-3, "Learning rate.", DICTIONARY, 0)
    seed: int = _option(0, "Seed of all random numbers.", DICTIONARY, 0, 2**63 - 1)
    centre: bool = _option(True, "Subtract each modality's mean before training.", DICTIONARY)
    namer: str = _option(
        "vocabulary",
        "Method that names the latents: vocabulary, decoder, wpmi or captions; endpoint (set OPENAI_API_KEY, "
        "OPENAI_BASE_URL, CLIPLENS_ENDPOINT_MODEL); transformers (set CLIPLENS_LOCAL_MODEL to a folder).",
        DICTIONARY,
    )
    vocabulary: str | None = _option(
        None, "Text file with one word or phrase per line; default: the words of the captions.", DICTIONARY
    )
    judge: str | None = _option(
        None,
        "Independent judge of monosemanticity and names, in addition to the model itself: sentences[:FOLDER], "
        "timm:NAME|WEIGHTS, open_clip:NAME|WEIGHTS, file:EMBEDDINGS.npz.",
        DICTIONARY,
    )
    target: str | None = _option(
        None,
        "Binary target of the information decomposition (columns pid_*): COLUMN=VALUE of the pairs' table, or "
        "FACTOR=VALUE of the world; default: whether the model retrieves the pair among 256 others.",
        DICTIONARY,
    )
    controls: bool = _option(
        False,
        "Also train controls: a dictionary with a frozen random decoder, one on the model with shuffled weights, and "
        "the same dictionary from three other seeds; takes about five times as long as training.",
        DICTIONARY,
    )
    wandb_project: str | None = _option(None, "Log the training to this Weights & Biases project.", DICTIONARY)

    device: str | None = _option(None, "cuda, mps or cpu; default: the first of these that is available.", MACHINE)
    dtype: Literal["float32", "float64", "float16", "bfloat16"] = _option(
        "float32", "Data type of the model's weights.", MACHINE
    )
    autocast: Literal["bfloat16", "float16"] | None = _option(
        None, "Run the model under torch.autocast with this data type.", MACHINE
    )
    compile: bool = _option(
        False, "Run the model through torch.compile, for accelerators; the first batches are slow.", MACHINE
    )
    forward_batch: int = _option(64, "Pairs per forward pass of the model.", MACHINE, 1)
    workers: int = _option(0, "Number of processes that decode images; 0 decodes in the main process.", MACHINE, 0)
    cache_dtype: Literal["float16", "float32"] = _option("float16", "Data type of activations on disk.", MACHINE)

    def __post_init__(self) -> None:
        if self.embeddings:
            self._check_embeddings()
        elif not self.pairs:
            raise InputError(
                expected="--pairs, the images and captions",
                found="none",
                fix="pass for example --pairs captions.csv, or --pairs world:4096",
            )
        elif self.captions or self.images:
            name = "captions" if self.captions else "images"
            raise InputError(
                expected=f"--{name} beside --embeddings",
                found=f"--{name} and --pairs",
                fix=f"leave --{name} out: --pairs names both images and captions",
            )
        kinds = get_type_hints(Settings)
        for name in kinds:
            if isinstance(getattr(self, name), PathLike):
                object.__setattr__(self, name, str(getattr(self, name)))
            _check_kind(name, getattr(self, name), kinds[name])
        if not 0 < self.held_out < 1:
            raise InputError(
                expected="--held-out as a fraction above 0 and below 1",
                found=str(self.held_out),
                fix="pass for example --held-out 0.2",
            )
        for name, metadata in {f.name: f.metadata for f in fields(self)}.items():
            value = getattr(self, name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                _check_number(name, value, metadata.get("min"), metadata.get("max"))
        if self.controls and self.sae is not None:
            raise InputError(
                expected="--controls with a dictionary that the run trains",
                found=f"--sae {self.sae}, whose training is not known",
                fix="leave --controls out: an untrained dictionary and permuted pairs are compared without it",
            )
        if self.lr == 0:
            raise InputError(expected="--lr above 0", found="0", fix="pass for example --lr 0.001")

    def _check_embeddings(self) -> None:
        if self.model not in ("world", "embeddings"):
            raise InputError(
                expected="either a model or embeddings",
                found=f"--model {self.model} and --embeddings",
                fix="remove one of the two options",
            )
        if self.pairs and (self.captions or self.images):
            raise InputError(
                expected="either --pairs or --captions and --images",
                found="both",
                fix="remove --pairs, or add the captions and images to its table",
            )
        if isinstance(self.embeddings, str | bytes) or not all(
            isinstance(p, str | PathLike) for p in self.embeddings or ()
        ):
            raise InputError(
                expected="a list of files of embeddings",
                found=repr(self.embeddings)[:80],
                fix="pass ['image.npy', 'text.npy']",
            )
        usual = {f.name: f.default for f in fields(self)}
        unread = [name for name in _OF_A_MODEL if getattr(self, name) != usual[name]]
        if unread:
            raise InputError(
                expected="options that a run of embeddings reads",
                found=", ".join(f"--{name.replace('_', '-')}" for name in unread),
                fix="leave out what needs a model, or run on one with --model and --pairs",
            )
        for name in ("captions", "images"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, str(getattr(self, name)))
        object.__setattr__(self, "embeddings", [str(path) for path in self.embeddings or ()])
        object.__setattr__(self, "model", "embeddings")

    @property
    def source(self) -> str:
        """Where the pairs come from, for messages."""
        return self.pairs or ", ".join(map(str, self.embeddings or []))

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments for `cliplens.read_pairs`, without those that were not set."""
        names = ("image_column", "caption_column", "id_column", "image_root", "delimiter", "quoting", "background")
        given = {name: getattr(self, name) for name in (*names, "orientation", "max_pixels")}
        return {"modalities": self.modalities, **{k: v for k, v in given.items() if v is not None}}

    @property
    def sides(self) -> tuple[Side, ...]:
        """The towers of the dictionary: the one in the hook, else those of `tower`."""
        side = self.hook.partition(".")[0]
        side = side if side in SIDES else self.tower
        return tuple(s for s in SIDES if side in (s, "both"))

    @property
    def modalities(self) -> Literal["both", "image", "text"]:
        """The modalities of the dictionary."""
        return "both" if len(self.sides) > 1 else self.sites[0].modality

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites of the dictionary."""
        if "." in self.hook and self.hook.partition(".")[0] in SIDES:
            return sites_of(self.hook)
        return tuple(Site(side, self.hook) for side in self.sides)

    def asked(self) -> dict[str, Any]:
        """Return the settings that are not None, for run.toml."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _check_kind(name: str, value: Any, kind: Any) -> None:
    """Check a value against the annotation of its field: one of the choices, a number, a text, a switch."""
    option = "--" + name.replace("_", "-")
    allowed = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    choices = [c for a in allowed if get_origin(a) is Literal for c in get_args(a)]
    if value is None and type(None) in allowed:
        return
    if choices:
        if value not in choices:
            raise unknown_name(f"choice of {option}", value, choices)
        return
    plain = tuple(get_origin(a) or a for a in allowed if a is not type(None))
    numbers = tuple({int: Integral, float: Real}.get(t, t) for t in plain)
    if not isinstance(value, numbers) or (isinstance(value, bool) and bool not in plain):
        wanted = " or ".join(t.__name__ for t in plain)
        raise InputError(
            expected=f"{option} as {wanted}",
            found=f"{type(value).__name__} {value!r}",
            fix=f"pass {option} as {wanted}",
        )


def _check_number(name: str, value: int | float, low: int | None, high: int | None) -> None:
    option = "--" + name.replace("_", "-")
    above = "" if low is None else f" of at least {low:g}"
    below = "" if high is None else f" and at most {high:g}"
    if not math.isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
        raise InputError(
            expected=f"{option} as a number{above}{below}",
            found=str(value),
            fix=f"pass {option} with a value in that range",
        )
