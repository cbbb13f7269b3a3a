"""Convert SLIP and DeCLIP, self-supervised relatives of CLIP, from their published state dicts to open_clip.

`load("slip:/path/checkpoint.pt")`, `load("declip:/path/checkpoint.pth.tar")`; or `slip_to_open_clip(state_dict)` and
`declip_to_open_clip(state_dict)`. Widths and depths are those of the tensors. Heads of the self-supervised losses are
left out. SLIP: https://arxiv.org/abs/2112.12750 (a timm ViT and CLIP's text transformer); DeCLIP:
https://arxiv.org/abs/2110.05208 (CLIP's two transformers; its tokenizer has one more token, `<|mask|>`).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from open_clip.constants import IMAGENET_MEAN, IMAGENET_STD
from open_clip.model import CustomTextCLIP
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import SimpleTokenizer
from timm.layers import LayerNorm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cliplens.contracts import LoadedModel, ModelCard, ModelSource
from cliplens.errors import MismatchError
from cliplens.hooked import identity_of
from cliplens_hooks.models.checkpoints import State, read_tensors
from cliplens_hooks.models.open_clip import describe, preprocess_of

SLIP_HEADS = {384: 12, 768: 12, 1024: 16}
"""Number of heads of SLIP's image tower by width. Its small ViT has 12 heads of 32 dimensions, as in MoCo v3."""
D_HEAD = 64
PREPROCESS: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": "bilinear"}
"""SLIP's evaluation transform. DeCLIP's settings are not in its repository: ImageNet's statistics are assumed."""
_TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
_NEEDLESS = ("image_mlp.", "projector", "predictor", "nn_replacer", "text_label_predictor")
_START = 49406
"""open_clip's id of the start token. In DeCLIP, the ids of the start and end token are larger by one."""


class RelativeModels(ModelSource):
    """Loads `slip:` and `declip:` followed by a checkpoint file."""

    def models(self) -> Sequence[ModelCard]:
        """Return one entry for each of the two kinds."""
        return [
            ModelCard("slip:FILE", (), "timm VisionTransformer", "TextTransformer", "heads", "heads"),
            ModelCard("declip:FILE", (), "VisionTransformer", "TextTransformer", "heads", "heads"),
        ]

    def knows(self, name: str) -> bool:
        """Return whether the name begins with `slip:` or `declip:`."""
        return name.partition(":")[0] in CONVERTERS and ":" in name

    def load(self, name: str, pretrained: str | None, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Load the model, converted to open_clip.

        Raises:
            InputError: the file is missing.
            MismatchError: the tensors are not those of this kind.
            UnsafeFileError: the file contains other objects than tensors.
        """
        kind, _, path = name.partition(":")
        model = CONVERTERS[kind](read_tensors(Path(path)))
        tokenizer = SimpleTokenizer(context_length=model.text.context_length)  # type: ignore[union-attr]
        known = tokenizer if kind == "slip" else DeclipTokenizer(tokenizer)
        cfg = {"size": tuple(model.visual.image_size), **PREPROCESS}  # type: ignore[union-attr,arg-type]
        identity = identity_of(model, name=name, pretrained=pretrained, preprocess=describe(cfg), tokenizer=known)
        model.eval().to(device=device, dtype=dtype)
        return LoadedModel(model, preprocess_of(cfg), known, identity)

    def adopt(self, model: nn.Module) -> None:
        """Return None: the packages that define such objects are not supported."""
        return


class DeclipTokenizer:
    """open_clip's tokenizer with DeCLIP's ids. `<|mask|>` precedes the start token, which shifts two ids by one."""

    def __init__(self, tokenizer: SimpleTokenizer) -> None:
        self.tokenizer = tokenizer
        self.context_length = tokenizer.context_length
        self.sot_token_id, self.eot_token_id = tokenizer.sot_token_id + 1, tokenizer.eot_token_id + 1

    def __call__(self, captions: Sequence[str]) -> Tensor:
        ids = self.tokenizer(list(captions))
        return ids + (ids >= _START).to(ids.dtype)


def slip_to_open_clip(state: Mapping[str, Tensor]) -> nn.Module:
    """Convert weights of SLIP, or of the CLIP in its repository, to open_clip's model over a timm trunk.

    Raises:
        MismatchError: the tensors are not those of SLIP.
    """
    own = _kept(state, "visual.cls_token", "SLIP")
    trunk = {f"visual.trunk.{n.removeprefix('visual.')}": v for n, v in own.items() if n.startswith("visual.")}
    text = {f"text.{n}": v for n, v in own.items() if n.startswith(_TEXT)}
    head = {"visual.head.proj.weight": own["image_projection"].T, "logit_scale": own["logit_scale"].reshape(())}
    made = _made(own["image_projection"].shape[1], text)
    made.visual = _slip_vision(own)
    return _filled(made, {**trunk, **text, **head}, "SLIP")


def declip_to_open_clip(state: Mapping[str, Tensor]) -> nn.Module:
    """Convert weights of DeCLIP (ViT, with the transformer text encoder) to open_clip's model.

    Raises:
        MismatchError: the tensors are not those of DeCLIP.
    """
    own = _kept(state, "encode_text.token_embedding.weight", "DeCLIP")
    if "visual.class_embedding" not in own:
        raise MismatchError(expected="DeCLIP with a ViT", found="another image tower", fix="use its ViT-B checkpoint")
    text = {n.replace("encode_text.", "text.", 1): v for n, v in own.items() if n.startswith("encode_text.")}
    vision = {n: v for n, v in own.items() if n.startswith("visual.")}
    conv, pos = own["visual.conv1.weight"], own["visual.positional_embedding"]
    size = round((len(pos) - 1) ** 0.5) * conv.shape[-1]
    cfg = {
        "image_size": size,
        "patch_size": conv.shape[-1],
        "width": conv.shape[0],
        "head_width": min(D_HEAD, conv.shape[0]),
        "layers": _depth(own, "visual.transformer.resblocks."),
    }
    made = _made(own["visual.proj"].shape[1], text, cfg)
    return _filled(made, {**vision, **text, "logit_scale": own["logit_scale"].reshape(())}, "DeCLIP")


def _kept(state: Mapping[str, Tensor], mark: str, kind: str) -> State:
    own = {n: v for n, v in state.items() if not n.startswith(_NEEDLESS)}
    if mark not in own:
        raise MismatchError(
            expected=f"the layout of {kind} (with {mark!r})",
            found=f"{len(state)} tensors, the first {sorted(state)[:3]}",
            fix="pass the published checkpoint, or load it under another name",
        )
    return own


def _made(d_embed: int, text: State, vision: dict[str, Any] | None = None) -> CustomTextCLIP:
    width, context = text["text.positional_embedding"].shape[1], len(text["text.positional_embedding"])
    placeholder = {"layers": 1, "width": 8, "head_width": 8, "patch_size": 8, "image_size": 8}
    text_cfg = {
        "context_length": context,
        "vocab_size": len(text["text.token_embedding.weight"]),
        "width": width,
        "heads": max(1, width // D_HEAD),
        "layers": _depth(text, "text.transformer.resblocks."),
        "proj_bias": "text.text_projection.bias" in text,
    }
    return CustomTextCLIP(d_embed, vision or placeholder, text_cfg, quick_gelu=True)


def _slip_vision(own: State) -> TimmModel:
    conv, pos = own["visual.patch_embed.proj.weight"], own["visual.pos_embed"]
    width, patch = conv.shape[0], conv.shape[-1]
    size = round((pos.shape[1] - 1) ** 0.5) * patch
    visual = TimmModel.__new__(TimmModel)
    nn.Module.__init__(visual)
    visual.image_size = (size, size)
    visual.trunk = VisionTransformer(
        img_size=size,
        patch_size=patch,
        embed_dim=width,
        depth=_depth(own, "visual.blocks."),
        num_heads=SLIP_HEADS.get(width, max(1, width // D_HEAD)),
        num_classes=0,
        norm_layer=partial(LayerNorm, eps=1e-6),
    )
    visual.head = nn.Sequential()
    visual.head.add_module("proj", nn.Linear(width, own["image_projection"].shape[1], bias=False))
    return visual


def _depth(state: State, prefix: str) -> int:
    return 1 + max((int(n.removeprefix(prefix).partition(".")[0]) for n in state if n.startswith(prefix)), default=-1)


def _filled(made: nn.Module, state: State, kind: str) -> nn.Module:
    try:
        made.load_state_dict(state)
    except RuntimeError as error:
        raise MismatchError(
            expected=f"the layout of {kind}",
            found=" ".join(str(error).split())[:300],
            fix="pass the published checkpoint",
        ) from error
    return made.eval()


CONVERTERS: dict[str, Callable[[Mapping[str, Tensor]], nn.Module]] = {
    "slip": slip_to_open_clip,
    "declip": declip_to_open_clip,
}
