"""Open Hugging Face's CLIP, SigLIP and SigLIP 2, or one encoder of them, by name, folder or object.

`load("hf:openai/clip-vit-base-patch32")` uses the hub; `load("hf:/path/to/folder")` does not. The text encoder and the
image encoder of a diffusers pipeline open as models with one tower: `load("hf:/path/sd/text_encoder")`. So does the
vision tower in a folder of LLaVA: `load("hf:/path/llava")`. The towers belong to an open_clip model with copies of the
weights (`hf_conversion`), so later changes of the object have no effect.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor, nn

from cliplens.contracts import LoadedModel, ModelCard, ModelSource
from cliplens.errors import InputError, MismatchError
from cliplens.hooked import changes, has_hooks, identity_of
from cliplens_hooks.models.hf_conversion import SUPPORTED, VISION_ONLY, to_open_clip
from cliplens_hooks.models.hf_inside import tower_inside
from cliplens_hooks.models.hf_preprocess import FILES, preprocess_at, usual
from cliplens_hooks.models.hf_state import TEXT_ONLY

PREFIX = "hf:"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
"""In a folder without any of these files, transformers makes an empty tokenizer without a warning."""
SIBLINGS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2", "image_encoder": "feature_extractor"}
"""Folders of a diffusers pipeline: the folder of the tokenizer or image processor of each encoder."""
_VOCABULARY = 49408
_TOLERANCE = 1e-3


class HuggingFaceModels(ModelSource):
    """Loads `hf:` names and recognises transformers' model objects."""

    def models(self) -> Sequence[ModelCard]:
        """Return no models: the hub is the list."""
        return []

    def knows(self, name: str) -> bool:
        """Return whether the name begins with `hf:`."""
        return name.startswith(PREFIX)

    def load(self, name: str, pretrained: str | None, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Return the model with its preprocess and tokenizer.

        Raises:
            InputError: the model cannot be loaded, or is of another kind.
            MismatchError: its preprocessing returns images of another size than the model expects.
        """
        if pretrained is not None:
            raise InputError(
                expected=f"no `pretrained` with the name {name!r}",
                found=repr(pretrained),
                fix="leave `pretrained` out",
            )
        place, options = _place(name.removeprefix(PREFIX))
        stock = _read(place, options)
        model, kind = to_open_clip(stock), stock.config.model_type
        preprocess = described = None
        if kind not in TEXT_ONLY:
            preprocess, described = preprocess_at(*_processor_place(place, options, FILES), kind, model)
        tokenizer = None
        if kind not in VISION_ONLY:
            tokenizer = _tokenizer(*_processor_place(place, options, TOKENIZER_FILES), _text_config(stock), kind)
        loaded = _complete(model, name, preprocess, described, tokenizer)
        model.to(device=device, dtype=dtype)
        return loaded

    def adopt(self, model: nn.Module) -> LoadedModel | None:
        """Return the model converted to open_clip; None for other objects.

        Raises:
            MismatchError: the code of the object was changed, so that a copy of its weights has other embeddings.
        """
        if not isinstance(model, transformers.PreTrainedModel) or model.config.model_type not in SUPPORTED:
            return None
        made, kind = to_open_clip(model), model.config.model_type
        if changed := changes(model):
            _check_same(model, made, kind, changed)
        preprocess = described = tokenizer = None
        if kind not in TEXT_ONLY:
            preprocess, described = usual(kind, made)
        if kind not in VISION_ONLY:
            text = _text_config(model)
            own = kind.startswith("clip") and text.vocab_size == _VOCABULARY
            tokenizer = SimpleTokenizer(context_length=text.max_position_embeddings) if own else None
        return _complete(made, model.config.name_or_path or type(model).__name__, preprocess, described, tokenizer)


def _text_config(stock: Any) -> Any:
    return getattr(stock.config, "text_config", None) or stock.config


def _place(source: str) -> tuple[str, dict[str, Any]]:
    """Return the folder or repository, and the subfolder of a repository where the name has one."""
    owner, _, rest = source.partition("/")
    name, _, subfolder = rest.partition("/")
    if Path(source).is_dir() or not subfolder or source.startswith((".", "/", "~")):
        return str(Path(source).expanduser()) if source.startswith("~") else source, {}
    return f"{owner}/{name}", {"subfolder": subfolder}


def _processor_place(place: str, options: dict[str, Any], files: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the folder of an encoder's tokenizer or image processor: its own, or one next to it in a pipeline."""
    folder = Path(place)
    if options:
        sibling = SIBLINGS.get(options["subfolder"])
        return (place, {"subfolder": sibling}) if sibling else (place, options)
    sibling = SIBLINGS.get(folder.name)
    has_own = any((folder / name).is_file() for name in files)
    return (str(folder.parent / sibling), {}) if sibling and not has_own else (place, options)


def _read(place: str, options: dict[str, Any]) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(place, **options)
        if config.model_type not in SUPPORTED:
            inside = None if options else tower_inside(Path(place), config)
            if inside is not None:
                return inside
            raise InputError(
                expected=f"a model of type {', '.join(SUPPORTED)}",
                found=config.model_type,
                fix="load it under its name in open_clip or timm",
            )
        return _class_of(config).from_pretrained(place, **options).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            expected=f"a CLIP or SigLIP model at {'/'.join([place, *options.values()])!r}",
            found=" ".join(str(error).split())[:200],
            fix="check the network or the path (a folder with config.json and model.safetensors)",
        ) from error


def _class_of(config: Any) -> Any:
    """Return the class that saved a configuration. `AutoModel` would drop the projection of a single encoder."""
    named = next(iter(config.architectures or ()), "")
    found = getattr(transformers, named, None)
    return found if found is not None and config.model_type in (*TEXT_ONLY, *VISION_ONLY) else transformers.AutoModel


def _check_same(stock: Any, made: nn.Module, kind: str, changed: dict[str, str]) -> None:
    """Compare a changed object with the copy of its weights on two random inputs."""
    listed = "; ".join(f"{name or 'the model'} is {why}" for name, why in list(changed.items())[:3])
    if any(has_hooks(module) for module in stock.modules()):
        raise MismatchError(
            expected="a transformers model without hooks, because a copy of its weights would not run them",
            found=listed,
            fix="remove the hooks, and add hooks to the towers with clip.add_hook",
        )
    gap = max(_gaps(stock, made, kind))
    if not gap <= _TOLERANCE:
        raise MismatchError(
            expected="a transformers model with the same embeddings as a copy of its weights",
            found=f"embeddings that differ by {gap:.1e}, as {listed}",
            fix="wrap the model without that change (merge a LoRA with merge_and_unload)",
        )


@torch.no_grad()
def _gaps(stock: Any, made: Any, kind: str) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    where = {"device": stock.device, "dtype": next(stock.parameters()).dtype}
    modes = {module: module.training for module in stock.modules()}
    stock.eval()
    try:
        gaps = []
        if kind not in TEXT_ONLY:
            images = torch.randn(2, 3, *made.visual.image_size, generator=generator).to(**where)
            run = stock.get_image_features if hasattr(stock, "get_image_features") else stock
            given = _in_patches(images, stock) if kind.startswith("siglip2") else {"pixel_values": images}
            gaps.append(_gap(_embedding(run(**given), "image_embeds"), made.visual(images)))
        if kind not in VISION_ONLY:
            text = _text_config(stock)
            shape = (2, text.max_position_embeddings)
            tokens = torch.randint(1, text.vocab_size, shape, generator=generator).to(stock.device)
            run = stock.get_text_features if hasattr(stock, "get_text_features") else stock
            encode = made.encode_text
            gaps.append(_gap(_embedding(run(input_ids=tokens), "text_embeds"), encode(tokens)))
        return gaps or [0.0]
    finally:
        for module, training in modes.items():
            module.training = training


def _in_patches(images: Tensor, stock: Any) -> dict[str, Tensor]:
    """Return images as transformers' SigLIP 2 takes them: flattened patches, which of them count, rows and columns."""
    size = (getattr(stock.config, "vision_config", None) or stock.config).patch_size
    patches = images.unfold(2, size, size).unfold(3, size, size).permute(0, 2, 3, 4, 5, 1)
    n, rows, columns = patches.shape[:3]
    return {
        "pixel_values": patches.reshape(n, rows * columns, -1),
        "pixel_attention_mask": torch.ones(n, rows * columns, dtype=torch.long, device=images.device),
        "spatial_shapes": torch.tensor([[rows, columns]] * n, device=images.device),
    }


def _embedding(answer: Any, name: str) -> Tensor:
    if isinstance(answer, Tensor):
        return answer
    projected = getattr(answer, name, None)
    return answer.pooler_output if projected is None else projected


def _gap(wanted: Tensor, got: Tensor) -> float:
    if wanted.shape != got.shape:
        return float("inf")
    return float((wanted - got).float().norm() / wanted.float().norm().clamp_min(1e-12))


def _tokenizer(place: str, options: dict[str, Any], text: Any, kind: str) -> Callable[[Sequence[str]], Tensor] | None:
    clean = "whitespace" if kind.startswith("clip") else "canonicalize"
    folder = Path(place)
    try:
        if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise FileNotFoundError(place)
        return HFTokenizer(place, context_length=text.max_position_embeddings, clean=clean, **options)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        if kind.startswith("clip") and text.vocab_size == _VOCABULARY:
            return SimpleTokenizer(context_length=text.max_position_embeddings)
        warnings.warn(
            f"{place} has no tokenizer here ({type(error).__name__}): pass one with tokenizer= to read captions",
            stacklevel=4,
        )
        return None


def _complete(model: nn.Module, name: str, preprocess: Any, described: str | None, tokenizer: Any) -> LoadedModel:
    identity = identity_of(model, name=name, pretrained=None, preprocess=described or "", tokenizer=tokenizer)
    return LoadedModel(model, preprocess, tokenizer, identity)
