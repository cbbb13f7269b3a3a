"""Hugging Face's CLIP, SigLIP and SigLIP 2: their weights in open_clip's form, both towers.

`load("hf:openai/clip-vit-base-patch32")` asks the hub; `load("hf:/path/to/folder")` does not. A `CLIPModel`,
`SiglipModel` or `Siglip2Model` object can be wrapped too. In each case the towers belong to an open_clip model with the
same numbers: transformers keeps q, k and v apart where open_clip packs them, so its tensors cannot be shared. The
object that was given is left as it was, and later changes to it do not reach the towers.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from timm.layers import LayerNorm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cliplens.contracts import LoadedModel, ModelCard, ModelSource
from cliplens.errors import InputError, MismatchError
from cliplens.hooked import identity_of
from cliplens_hooks.models.open_clip import describe, preprocess_of

PREFIX = "hf:"
KINDS = ("clip", "siglip", "siglip2")
ACTIVATIONS = {"gelu": {}, "gelu_pytorch_tanh": {"approximate": "tanh"}, "gelu_new": {"approximate": "tanh"}}
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
"""Without one of these in a folder transformers makes an empty tokenizer of the right class and says nothing."""
HALF = (0.5, 0.5, 0.5)
_VOCABULARY = 49408


class HuggingFaceModels(ModelSource):
    """`hf:` names and transformers' model objects."""

    def models(self) -> Sequence[ModelCard]:
        """None are listed: the hub is the list."""
        return []

    def knows(self, name: str) -> bool:
        """Names that begin with `hf:`."""
        return name.startswith(PREFIX)

    def load(self, name: str, pretrained: str | None, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """The model with its preprocess and tokenizer.

        Raises:
            InputError: it cannot be had, or is of another kind.
        """
        if pretrained is not None:
            raise InputError(
                expected=f"no `pretrained` beside {name!r}",
                found=repr(pretrained),
                fix="leave it out: the name says it all",
            )
        source = name.removeprefix(PREFIX)
        stock = _read(source)
        model = to_open_clip(stock)
        loaded = _complete(
            model, name, _preprocess_cfg(source, stock.config.model_type, model), _tokenizer(source, stock.config)
        )
        model.to(device=device, dtype=dtype)
        return loaded

    def adopt(self, model: nn.Module) -> LoadedModel | None:
        """transformers' CLIP and SigLIP objects."""
        if not isinstance(model, transformers.PreTrainedModel) or model.config.model_type not in KINDS:
            return None
        made = to_open_clip(model)
        text = model.config.text_config
        own = model.config.model_type == "clip" and text.vocab_size == _VOCABULARY
        tokenizer = SimpleTokenizer(context_length=text.max_position_embeddings) if own else None
        name = model.config.name_or_path or type(model).__name__
        return _complete(made, name, _default_cfg(model.config.model_type, made), tokenizer)


def to_open_clip(model: nn.Module) -> nn.Module:
    """An open_clip model with the weights of a transformers `CLIPModel`, `SiglipModel` or `Siglip2Model`.

    Raises:
        MismatchError: the configuration says something open_clip has no word for.
    """
    stock: Any = model
    state = {name: value.detach().clone() for name, value in stock.state_dict().items()}
    with torch.device("meta"):
        made = _clip(stock.config) if stock.config.model_type == "clip" else _siglip(stock.config)
    made = made.to_empty(device="cpu")
    converted = (clip_state if stock.config.model_type == "clip" else siglip_state)(state, stock.config)
    _fill_buffers(made)
    try:
        made.load_state_dict(converted)
    except RuntimeError as error:
        raise MismatchError(
            expected=f"the layout of transformers' {type(stock).__name__}",
            found=" ".join(str(error).split())[:300],
            fix="report the model's name to cliplens",
        ) from error
    first = next(stock.parameters())
    return made.to(device=first.device, dtype=first.dtype).train(stock.training)


def _fill_buffers(made: nn.Module) -> None:
    for module in made.modules():
        mask = getattr(module, "attn_mask", None)
        if isinstance(mask, Tensor):
            mask.copy_(torch.full_like(mask, float("-inf")).triu(1))


def _ratio(inner: int, width: int) -> float:
    """For int(width * ratio), as open_clip and timm compute: the half keeps rounding from losing one."""
    return (inner + 0.5) / width


def _text_cfg(text: Any, **more: Any) -> dict[str, Any]:
    return {
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "width": text.hidden_size,
        "heads": text.num_attention_heads,
        "layers": text.num_hidden_layers,
        "mlp_ratio": _ratio(text.intermediate_size, text.hidden_size),
        "norm_kwargs": {"eps": text.layer_norm_eps},
        **more,
    }


def _act(name: str) -> dict[str, Any]:
    if name not in ACTIVATIONS:
        raise MismatchError(
            expected=f"an activation among {['quick_gelu', *ACTIVATIONS]}",
            found=repr(name),
            fix="use a model with one of them",
        )
    return ACTIVATIONS[name]


def _clip(config: Any) -> nn.Module:
    vision, text = config.vision_config, config.text_config
    quick = vision.hidden_act == "quick_gelu"
    act = None if quick else _act(vision.hidden_act)
    pooling = {"pool_type": "argmax"} if text.eos_token_id == 2 else {"pool_type": "eos", "eos_id": text.eos_token_id}
    vision_cfg = {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "width": vision.hidden_size,
        "head_width": vision.hidden_size // vision.num_attention_heads,
        "layers": vision.num_hidden_layers,
        "mlp_ratio": _ratio(vision.intermediate_size, vision.hidden_size),
        "norm_kwargs": {"eps": vision.layer_norm_eps},
        "act_kwargs": act,
    }
    return CLIP(config.projection_dim, vision_cfg, _text_cfg(text, act_kwargs=act, **pooling), quick_gelu=quick)


def _siglip(config: Any) -> nn.Module:
    vision, text = config.vision_config, config.text_config
    width = getattr(text, "projection_size", None) or text.hidden_size
    options = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "act_kwargs": _act(text.hidden_act)}
    placeholder = {"layers": 1, "width": 8, "head_width": 8, "patch_size": 8, "image_size": 8}
    made = CustomTextCLIP(width, placeholder, _text_cfg(text, **options), init_logit_bias=0.0)
    made.visual = _siglip_vision(vision, config.model_type)
    return made


def _siglip_vision(vision: Any, kind: str) -> TimmModel:
    size = vision.image_size if kind == "siglip" else int(vision.num_patches**0.5) * vision.patch_size
    visual = TimmModel.__new__(TimmModel)
    nn.Module.__init__(visual)
    visual.image_size = (size, size)
    visual.trunk = VisionTransformer(
        img_size=size,
        patch_size=vision.patch_size,
        embed_dim=vision.hidden_size,
        depth=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        mlp_ratio=_ratio(vision.intermediate_size, vision.hidden_size),
        num_classes=0,
        global_pool="map",
        class_token=False,
        norm_layer=partial(LayerNorm, eps=vision.layer_norm_eps),
        act_layer=partial(nn.GELU, **_act(vision.hidden_act)),
    )
    visual.head = nn.Sequential()
    return visual


State = dict[str, Tensor]
_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_TIMM_BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "self_attn.out_proj": "attn.proj",
}


def _blocks(state: State, source: str, target: str, n: int, names: Mapping[str, str], packed: str) -> State:
    out: State = {}
    for i in range(n):
        for end in ("weight", "bias"):
            at = f"{source}.encoder.layers.{i}"
            qkv = [state[f"{at}.self_attn.{p}_proj.{end}"] for p in "qkv"]
            out[f"{target}.{i}.{packed}{end}"] = torch.cat(qkv)
            out |= {f"{target}.{i}.{ours}.{end}": state[f"{at}.{theirs}.{end}"] for theirs, ours in names.items()}
    return out


def _pair(state: State, source: str, target: str) -> State:
    return {f"{target}.{end}": state[f"{source}.{end}"] for end in ("weight", "bias")}


def _text_state(state: State, n: int, prefix: str) -> State:
    return {
        f"{prefix}token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        f"{prefix}positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        **_pair(state, "text_model.final_layer_norm", f"{prefix}ln_final"),
        **_blocks(state, "text_model", f"{prefix}transformer.resblocks", n, _BLOCK, "attn.in_proj_"),
    }


def clip_state(state: State, config: Any) -> State:
    """transformers' `CLIPModel` state dict as open_clip's `CLIP`'s."""
    vision = "vision_model.embeddings."
    return {
        "logit_scale": state["logit_scale"],
        "visual.class_embedding": state[f"{vision}class_embedding"],
        "visual.positional_embedding": state[f"{vision}position_embedding.weight"],
        "visual.conv1.weight": state[f"{vision}patch_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].T,
        "text_projection": state["text_projection.weight"].T,
        **_pair(state, "vision_model.pre_layrnorm", "visual.ln_pre"),
        **_pair(state, "vision_model.post_layernorm", "visual.ln_post"),
        **_blocks(
            state,
            "vision_model",
            "visual.transformer.resblocks",
            config.vision_config.num_hidden_layers,
            _BLOCK,
            "attn.in_proj_",
        ),
        **_text_state(state, config.text_config.num_hidden_layers, ""),
    }


def siglip_state(state: State, config: Any) -> State:
    """transformers' `SiglipModel` or `Siglip2Model` state dict as that of open_clip's `CustomTextCLIP` over timm."""
    trunk, n = "visual.trunk", config.vision_config.num_hidden_layers
    head = "vision_model.head"
    asked, answered = {}, {}
    for end in ("weight", "bias"):
        packed = state[f"{head}.attention.in_proj_{end}"]
        d = len(packed) // 3
        asked[f"{trunk}.attn_pool.q.{end}"], answered[f"{trunk}.attn_pool.kv.{end}"] = packed[:d], packed[d:]
    return {
        "logit_scale": state["logit_scale"].reshape(()),
        "logit_bias": state["logit_bias"].reshape(()),
        f"{trunk}.pos_embed": state["vision_model.embeddings.position_embedding.weight"].unsqueeze(0),
        f"{trunk}.patch_embed.proj.weight": _patches(state["vision_model.embeddings.patch_embedding.weight"], config),
        f"{trunk}.patch_embed.proj.bias": state["vision_model.embeddings.patch_embedding.bias"],
        f"{trunk}.attn_pool.latent": state[f"{head}.probe"],
        **asked,
        **answered,
        **_pair(state, f"{head}.attention.out_proj", f"{trunk}.attn_pool.proj"),
        **_pair(state, f"{head}.layernorm", f"{trunk}.attn_pool.norm"),
        **_pair(state, f"{head}.mlp.fc1", f"{trunk}.attn_pool.mlp.fc1"),
        **_pair(state, f"{head}.mlp.fc2", f"{trunk}.attn_pool.mlp.fc2"),
        **_pair(state, "vision_model.post_layernorm", f"{trunk}.norm"),
        **_blocks(state, "vision_model", f"{trunk}.blocks", n, _TIMM_BLOCK, "attn.qkv."),
        **_pair(state, "text_model.head", "text.text_projection"),
        **_text_state(state, config.text_config.num_hidden_layers, "text."),
    }


def _patches(weight: Tensor, config: Any) -> Tensor:
    """SigLIP 2 embeds patches that were flattened as [height, width, channel]; a convolution wants channels first."""
    if weight.ndim == 4:
        return weight
    p = config.vision_config.patch_size
    return weight.view(len(weight), p, p, -1).permute(0, 3, 1, 2).contiguous()


def _read(source: str) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        if config.model_type not in KINDS:
            raise InputError(
                expected=f"a model of type {', '.join(KINDS)}",
                found=config.model_type,
                fix="use open_clip's or timm's name for it",
            )
        return transformers.AutoModel.from_pretrained(source).eval()
    except OSError as error:
        raise InputError(
            expected=f"a CLIP or SigLIP model at {source!r}",
            found=" ".join(str(error).split())[:200],
            fix="check the network or the path (a folder with config.json and model.safetensors)",
        ) from error


def _default_cfg(kind: str, model: nn.Module) -> dict[str, Any]:
    cfg: dict[str, Any] = {"size": tuple(model.visual.image_size)}  # type: ignore[union-attr,arg-type]
    if kind != "clip":
        cfg |= {"mean": HALF, "std": HALF, "resize_mode": "squash"}
    return cfg


def _preprocess_cfg(source: str, kind: str, model: nn.Module) -> dict[str, Any]:
    cfg = _default_cfg(kind, model)
    try:
        found = transformers.AutoImageProcessor.from_pretrained(source)
    except (OSError, ValueError, ImportError):
        return cfg
    mean, std = getattr(found, "image_mean", None), getattr(found, "image_std", None)
    return {**cfg, **({"mean": tuple(mean)} if mean else {}), **({"std": tuple(std)} if std else {})}


def _tokenizer(source: str, config: Any) -> Callable[[Sequence[str]], Tensor] | None:
    clean = "whitespace" if config.model_type == "clip" else "canonicalize"
    folder = Path(source)
    try:
        if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise FileNotFoundError(source)
        return HFTokenizer(source, context_length=config.text_config.max_position_embeddings, clean=clean)
    except (OSError, ValueError, ImportError, KeyError) as error:
        if config.model_type == "clip" and config.text_config.vocab_size == _VOCABULARY:
            return SimpleTokenizer(context_length=config.text_config.max_position_embeddings)
        warnings.warn(f"{source} has no tokenizer here ({type(error).__name__}): captions need one given", stacklevel=4)
        return None


def _complete(model: nn.Module, name: str, cfg: dict[str, Any], tokenizer: Any) -> LoadedModel:
    identity = identity_of(model, name=name, pretrained=None, preprocess=describe(cfg), tokenizer=tokenizer)
    return LoadedModel(model, preprocess_of(cfg), tokenizer, identity)
