"""Load open_clip's models by name, and recognise open_clip model objects.

A name alone never uses the network: without `pretrained` the weights are random, with a warning
(`pretrained="random"` silences it). A tag, or `hf-hub:`, downloads weights. Weights files are opened as tensors only.
"""

import json
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.convert import convert_state_dict
from open_clip.factory import HF_HUB_PREFIX, LOCAL_DIR_PREFIX, get_model_config
from open_clip.model import (
    CLIP,
    CustomTextCLIP,
    convert_to_custom_text_state_dict,
    resize_pos_embed,
    resize_text_pos_embed,
)
from open_clip.pretrained import is_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from torch import Tensor, nn

from cliplens.contracts import HookLevel, LoadedModel, ModelCard, ModelSource
from cliplens.errors import CliplensError, InputError, MismatchError, unknown_name
from cliplens.hooked import identity_of
from cliplens_hooks.models.checkpoints import check_floating, read_tensors, unsafe, without_numbers

RANDOM = "random"
_PREFIXES = (LOCAL_DIR_PREFIX, HF_HUB_PREFIX)
_VOCABULARY = 49408
BIG_VISION = (".npz", ".npy")
"""Ending of Google's weights files, which open_clip reads itself."""
_POSITION_IDS = "text.transformer.embeddings.position_ids"


class OpenClipModels(ModelSource):
    """Loads open_clip's configurations, `local-dir:` folders and `hf-hub:` repositories of open_clip."""

    def models(self) -> Sequence[ModelCard]:
        """Return all of open_clip's configurations."""
        return [_card(name) for name in open_clip.list_models()]

    def knows(self, name: str) -> bool:
        """Return whether the name is a configuration of open_clip, or begins with `local-dir:` or `hf-hub:`."""
        return name.startswith(_PREFIXES) or _clean(name) in open_clip.list_models()

    def load(self, name: str, pretrained: str | None, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Load the model with its preprocess and tokenizer.

        Raises:
            InputError: a file or folder is missing, or the download fails.
            UnknownNameError: the tag is unknown; the message lists the nearest tags.
            MismatchError: the weights belong to another architecture.
            UnsafeFileError: the weights file is a pickle with other objects than tensors.
        """
        model = _created(name, _checked_weights(name, pretrained))
        tokenizer = _tokenizer_by_name(name, may_download=pretrained is not None or name.startswith(HF_HUB_PREFIX))
        loaded = _complete(model.eval(), name, pretrained, tokenizer)
        model.to(device=device, dtype=dtype)
        return loaded

    def adopt(self, model: nn.Module) -> LoadedModel | None:
        """Return an open_clip model object; its preprocess is made from its own configuration, if it has one."""
        if not isinstance(model, CLIP | CustomTextCLIP | CoCa):
            return None
        text = getattr(model, "text", model)
        own = getattr(text, "vocab_size", None) == _VOCABULARY
        tokenizer = SimpleTokenizer(context_length=text.context_length) if own else None
        return _complete(model, type(model).__name__, None, tokenizer)


def _complete(model: nn.Module, name: str, pretrained: str | None, tokenizer: Any) -> LoadedModel:
    cfg = getattr(model.visual, "preprocess_cfg", None)
    preprocess = None if cfg is None else preprocess_of(cfg)
    described = "" if cfg is None else describe(cfg)
    identity = identity_of(model, name=name, pretrained=pretrained, preprocess=described, tokenizer=tokenizer)
    return LoadedModel(model, preprocess, tokenizer, identity)


def preprocess_of(cfg: Mapping[str, Any]) -> Callable[[Image.Image], Tensor]:
    """Return open_clip's evaluation transform for a preprocess configuration."""
    return image_transform_v2(PreprocessCfg(**merge_preprocess_dict({}, dict(cfg))), is_train=False)


def describe(cfg: Mapping[str, Any]) -> str:
    """Return a preprocess configuration as JSON, with defaults."""
    full = merge_preprocess_dict(asdict(PreprocessCfg()), dict(cfg))
    return json.dumps(full, sort_keys=True, default=list)


def _clean(name: str) -> str:
    return name.replace("/", "-")


def _checked_weights(name: str, pretrained: str | None) -> str | None:
    """Return a tag or a file for open_clip; None for random weights or a folder with its own weights."""
    if name.startswith(_PREFIXES):
        if pretrained is not None:
            raise InputError(
                expected=f"{name!r} without `pretrained`, because it has its own weights",
                found=f"pretrained={pretrained!r}",
                fix="leave `pretrained` out",
            )
        return None
    if pretrained is None:
        warnings.warn(
            f"{name} without `pretrained` has random weights; pass a tag or a file, or pretrained='random'",
            stacklevel=4,
        )
    if pretrained is None or pretrained == RANDOM:
        return None
    if is_pretrained_cfg(_clean(name), pretrained) or Path(pretrained).is_file():
        return pretrained
    if "/" in pretrained or Path(pretrained).suffix in (".pt", ".pth", ".bin", ".safetensors", ".npz"):
        raise InputError(
            expected=f"a weights file for {name}",
            found=f"no file at {pretrained!r}",
            fix="check the path, or pass a tag",
        )
    raise unknown_name(f"pretrained tag of {name}", pretrained, [*list_pretrained_tags_by_model(_clean(name)), RANDOM])


def _created(name: str, pretrained: str | None) -> nn.Module:
    if name.startswith(LOCAL_DIR_PREFIX):
        _check_folder(Path(name.removeprefix(LOCAL_DIR_PREFIX)))
    file = None if pretrained is None or is_pretrained_cfg(_clean(name), pretrained) else Path(pretrained)
    own_reader = file is not None and file.suffix not in BIG_VISION
    try:
        with _silent_about_missing_weights():
            model = open_clip.create_model(
                name,
                None if own_reader else pretrained,
                precision="fp32",
                device="cpu",
                pretrained_image=False,
                pretrained_text=False,
            )
        if file is not None and own_reader:
            fill(model, file)
        return model
    except CliplensError:
        raise
    except pickle.UnpicklingError as error:
        raise unsafe(pretrained or name, error) from error
    except (RuntimeError, OSError, ValueError, KeyError, AssertionError, AttributeError, IndexError) as error:
        raise _explained(name, pretrained, error) from error


@contextmanager
def _silent_about_missing_weights() -> Iterator[None]:
    """Silence open_clip's log message about random weights: cliplens loads them, or has warned already."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def _check_folder(folder: Path) -> None:
    if not (folder / "open_clip_config.json").is_file():
        raise InputError(
            expected=f"a folder with open_clip_config.json and weights at {folder}",
            found="no such folder" if not folder.is_dir() else f"{sorted(p.name for p in folder.iterdir())[:8]}",
            fix="save one with open_clip.push_to_hf_hub.save_for_hf, or check the path",
        )


def fill(model: nn.Module, file: Path) -> None:
    """Load a weights file in any container into an open_clip model, with open_clip's own conversions.

    Raises:
        UnsafeFileError: the file contains other objects than tensors.
        MismatchError: the weights are quantised.
        RuntimeError: the tensors do not match the model (torch's message).
    """
    own = model.state_dict()
    state = without_numbers(read_tensors(file, own), own)
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in own:
            state[name] = state[name].reshape(own[name].shape)
    if "logit_bias" in own and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(own["logit_bias"])
    if _POSITION_IDS not in own:
        state.pop(_POSITION_IDS, None)
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    check_floating(state, own, file)
    model.load_state_dict(state)


def _explained(name: str, pretrained: str | None, error: Exception) -> Exception:
    words = str(error)
    keys = "size mismatch" in words or "Missing key" in words or "Unexpected key" in words
    if keys or (pretrained is not None and Path(pretrained).is_file()):
        first = " ".join(words.split())[:300]
        return MismatchError(
            expected=f"weights of {name}", found=first, fix="pass the name of the architecture of these weights"
        )
    return InputError(
        expected=f"{name} ({pretrained or 'no weights'}) from local files or a hub",
        found=f"{type(error).__name__}: {' '.join(words.split())[:300]}",
        fix="check the network, or pass a local weights file or local-dir:/path",
    )


def _tokenizer_by_name(name: str, may_download: bool) -> Callable[[Sequence[str]], Tensor] | None:
    cfg = get_model_config(name if name.startswith(_PREFIXES) else _clean(name)) or {}
    remote = cfg.get("text_cfg", {}).get("hf_tokenizer_name") and not name.startswith(LOCAL_DIR_PREFIX)
    offline = {"local_files_only": True} if remote and not may_download else {}
    try:
        return open_clip.get_tokenizer(name if name.startswith(_PREFIXES) else _clean(name), **offline)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        warnings.warn(f"{name} has no tokenizer here ({type(error).__name__}): captions need one given", stacklevel=4)
        return None


def _card(name: str) -> ModelCard:
    cfg = get_model_config(name)
    vision, vision_level = vision_family(cfg["vision_cfg"])
    text, text_level = text_family(cfg["text_cfg"])
    return ModelCard(name, tuple(list_pretrained_tags_by_model(name)), vision, text, vision_level, text_level)


def vision_family(cfg: Mapping[str, Any]) -> tuple[str, HookLevel]:
    """Return the family and the hook level of a vision configuration."""
    if not cfg.get("timm_model_name"):
        return ("ModifiedResNet", "stages") if isinstance(cfg["layers"], list) else ("VisionTransformer", "heads")
    import timm

    return TIMM_FAMILIES[timm.model_entrypoint(cfg["timm_model_name"]).__module__.rpartition(".")[2]]


TIMM_FAMILIES: dict[str, tuple[str, HookLevel]] = {
    "vision_transformer": ("timm VisionTransformer", "heads"),
    "vision_transformer_hybrid": ("timm VisionTransformer", "heads"),
    "vitamin": ("timm VisionTransformer", "heads"),
    "eva": ("timm Eva", "heads"),
    "vision_transformer_relpos": ("timm VisionTransformerRelPos", "blocks"),
    "convnext": ("ConvNeXt", "stages"),
    "fastvit": ("FastVit", "stages"),
    "swin_transformer": ("SwinTransformer", "stages"),
}
"""Family and hook level of the models that each timm module defines."""


def text_family(cfg: Mapping[str, Any]) -> tuple[str, HookLevel]:
    """Return the family and the hook level of a text configuration."""
    return ("HFTextEncoder", "blocks") if cfg.get("hf_model_name") else ("TextTransformer", "heads")
