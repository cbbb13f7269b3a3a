"""The settings of a run. The command line makes its options from them, and run.toml records them."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from cliplens.errors import InputError
from cliplens.sites import SIDES, Side, Site, sites_of

DATA, MODEL, DICTIONARY, MACHINE = "What to look at", "The model", "The dictionary", "The machine"


def _option(default: Any, about: str, group: str, low: int | None = None, high: int | None = None) -> Any:
    return field(default=default, metadata={"help": about, "group": group, "min": low, "max": high})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a run is asked for. Each field's help text is its documentation (`cliplens run --help`)."""

    pairs: str = field(
        default="",
        metadata={
            "group": DATA,
            "help": "CSV, TSV, JSONL, COCO JSON, a folder of images with .txt captions, WebDataset tars, parquet, "
            "hf:owner/name@split, or world:N for N pairs of the embedded world.",
        },
    )
    embeddings: list[str] | None = _option(  # noqa: RUF009
        None,
        "Files of embeddings instead of a model: image.npy text.npy, or one npz, parquet or safetensors.",
        DATA,
    )
    captions: str | None = _option(None, "Captions of the embeddings: a .txt with one per line, or a table.", DATA)
    images: str | None = _option(None, "Folder of images of the embeddings, in the order of their names.", DATA)
    image_column: str | None = _option(None, "Column with image paths; default the usual names.", DATA)
    caption_column: str | None = _option(None, "Column with captions; default the usual names.", DATA)
    id_column: str | None = _option(None, "Column with unique ids; default file names.", DATA)
    image_root: str | None = _option(None, "Folder image paths are relative to; default the file's own.", DATA)
    delimiter: str | None = _option(None, "Character between a table's cells, or tab; default finds it.", DATA)
    quoting: Literal["auto", "minimal", "none"] | None = _option(
        None, "Quotation marks of a table: auto takes unclosed ones as text, minimal sets such rows aside.", DATA
    )
    background: str | None = _option(None, "Colour behind transparent pixels; default white; drop ignores them.", DATA)
    orientation: Literal["upright", "stored"] | None = _option(
        None, "Turn pictures upright as EXIF says (default), or leave them as stored.", DATA
    )
    max_pixels: int | None = _option(None, "Larger pictures are set aside; default 134 million.", DATA, 1)
    max_bad: float = _option(0.01, "Largest fraction of unreadable pairs; more stops the run.", DATA, 0, 1)
    held_out: float = _option(
        0.2, "Fraction of pairs kept from training; scores and names come from these.", DATA, 0, 1
    )

    model: str = _option(
        "world", "open_clip name, local-dir:/path, or the embedded world or world-plain; see: cliplens models.", MODEL
    )
    pretrained: str | None = _option(None, "A tag of the model (downloads), or a local weights file.", MODEL)
    hook: str = _option(
        "hook_embedding",
        "Hook of both towers (hook_embedding) or a site of one (vision.blocks.9.hook_resid_post).",
        MODEL,
    )
    tower: Literal["both", "vision", "text"] = _option("both", "Towers the dictionary reads.", MODEL)
    token: str = _option("auto", "Position that stands for a sample: auto, cls, eot, mean, patches, all.", MODEL)

    sae: str | None = _option(
        None,
        "Dictionary made elsewhere, a SAELens folder or a checkpoint: every pair is scored.",
        DICTIONARY,
    )
    layout: str | None = _option(
        None, "Layout of --sae where its files do not say it (see docs/dictionaries.md): plain, openai, ...", DICTIONARY
    )
    architecture: str = _option(
        "batchtopk", "SAELens training architecture: batchtopk, topk, standard, gated, jumprelu, ...", DICTIONARY
    )
    d_sae: int | None = _option(None, "Latents; default four times the width of the hook.", DICTIONARY, 1)
    k: int | None = _option(None, "Latents per sample (top-k family); default a 32nd of them, 4 to 32.", DICTIONARY, 1)
    sparsity: float | None = _option(
        None, "Weight of the sparsity penalty (standard, gated: l1; jumprelu: l0); default by width.", DICTIONARY, 0
    )
    samples: int | None = _option(None, "Rows to train on; default 400 steps or 20 passes.", DICTIONARY, 1)
    batch_size: int = _option(1024, "Rows per training step.", DICTIONARY, 1)
    lr: float = _option(1e-3, "Learning rate.", DICTIONARY, 0)
    seed: int = _option(0, "Seed of everything random.", DICTIONARY, 0, 2**63 - 1)
    centre: bool = _option(True, "Subtract each modality's mean before training.", DICTIONARY)
    namer: str = _option(
        "vocabulary",
        "Who names the latents: vocabulary, decoder, wpmi, captions; endpoint (set OPENAI_API_KEY, OPENAI_BASE_URL, "
        "CLIPLENS_ENDPOINT_MODEL); transformers (set CLIPLENS_LOCAL_MODEL to a folder).",
        DICTIONARY,
    )
    vocabulary: str | None = _option(
        None, "File with a word or phrase a line; default the captions' words.", DICTIONARY
    )
    judge: str | None = _option(
        None,
        "Independent judge of monosemanticity and names, beside the model itself: sentences[:FOLDER], "
        "timm:NAME|WEIGHTS, open_clip:NAME|WEIGHTS, file:EMBEDDINGS.npz.",
        DICTIONARY,
    )
    target: str | None = _option(
        None,
        "What image and caption firing are asked about together (pid_*): COLUMN=VALUE of the pairs' table, "
        "FACTOR=VALUE of the world; default whether the model retrieves the pair among 256 others.",
        DICTIONARY,
    )
    wandb_project: str | None = _option(None, "Log training to this wandb project.", DICTIONARY)

    device: str | None = _option(None, "cuda, mps or cpu; default the best there is.", MACHINE)
    dtype: Literal["float32", "float64", "float16", "bfloat16"] = _option("float32", "Of the model.", MACHINE)
    autocast: Literal["bfloat16", "float16"] | None = _option(None, "Run matrix products of the model in it.", MACHINE)
    compile: bool = _option(False, "Read the model through torch.compile: for accelerators; slow to start.", MACHINE)
    forward_batch: int = _option(64, "Pairs per forward pass.", MACHINE, 1)
    workers: int = _option(0, "Processes that decode images.", MACHINE, 0)
    cache_dtype: Literal["float16", "float32"] = _option("float16", "Of activations on disk.", MACHINE)

    def __post_init__(self) -> None:
        if self.embeddings:
            self._check_embeddings()
        elif not self.pairs:
            raise InputError(expected="pairs to look at", found="none", fix="pass --pairs captions.csv")
        if not 0 < self.held_out < 1:
            raise InputError(
                expected="--held-out as a fraction between 0 and 1",
                found=str(self.held_out),
                fix="give for example 0.2",
            )
        for name, metadata in {f.name: f.metadata for f in fields(self)}.items():
            value = getattr(self, name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                _check_number(name, value, metadata.get("min"), metadata.get("max"))
        if self.lr == 0:
            raise InputError(expected="--lr above 0", found="0", fix="give for example 0.001")

    def _check_embeddings(self) -> None:
        if self.model not in ("world", "embeddings"):
            raise InputError(
                expected="either a model or embeddings",
                found=f"--model {self.model} and --embeddings",
                fix="leave one of them out",
            )
        if self.pairs and (self.captions or self.images):
            raise InputError(
                expected="either --pairs or --captions and --images",
                found="both",
                fix="leave --pairs out, or put captions and images into its table",
            )
        object.__setattr__(self, "model", "embeddings")

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of `cliplens.read_pairs` that were given."""
        names = ("image_column", "caption_column", "id_column", "image_root", "delimiter", "quoting", "background")
        given = {name: getattr(self, name) for name in (*names, "orientation", "max_pixels")}
        return {"modalities": self.modalities, **{k: v for k, v in given.items() if v is not None}}

    @property
    def sides(self) -> tuple[Side, ...]:
        """The towers the dictionary reads: the one the hook names, or those of `tower`."""
        side = self.hook.partition(".")[0]
        side = side if side in SIDES else self.tower
        return tuple(s for s in SIDES if side in (s, "both"))

    @property
    def modalities(self) -> Literal["both", "image", "text"]:
        """The modalities that the dictionary reads."""
        return "both" if len(self.sides) > 1 else self.sites[0].modality

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that the dictionary reads."""
        if "." in self.hook and self.hook.partition(".")[0] in SIDES:
            return sites_of(self.hook)
        return tuple(Site(side, self.hook) for side in self.sides)

    def asked(self) -> dict[str, Any]:
        """Return the settings that are not None, for run.toml."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _check_number(name: str, value: int | float, low: int | None, high: int | None) -> None:
    option = "--" + name.replace("_", "-")
    above = "" if low is None else f" of at least {low:g}"
    below = "" if high is None else f" and at most {high:g}"
    if not math.isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
        raise InputError(
            expected=f"{option} as a number{above}{below}", found=str(value), fix=f"give {option} a value in that range"
        )
