"""Steer CLIP-like encoders of transformers, such as those of Stable Diffusion, unCLIP, IP-Adapter and LLaVA.

Sites have the hook names of TransformerLens. They correspond to these modules:

| site                       | module                                                                       |
|----------------------------|------------------------------------------------------------------------------|
| `blocks.L.hook_resid_post` | output of `encoder.layers[L]`                                                |
| `blocks.L.hook_resid_pre`  | output of the layer before; of `embeddings` or `pre_layrnorm` before layer 0 |
| `blocks.L.hook_resid_mid`  | output of `self_attn`, moved as the sum with the layer's input is moved      |
| `blocks.L.hook_attn_out`   | output of `self_attn`                                                        |
| `blocks.L.hook_mlp_out`    | output of `mlp`                                                              |
| `hook_final`               | output of `final_layer_norm` (captions, not offered to dictionaries)         |
| `hook_pooled`              | input of the projection (output of `post_layernorm` for images)              |
| `hook_projected`           | output of the projection                                                     |
| `hook_embedding`           | the same at unit norm                                                        |

The towers of Qwen2-VL, 2.5-VL and 3-VL keep their layers in `blocks`, with `attn` and `mlp`, and have the block sites.

Hooks are put before existing ones: transformers records `hidden_states` with its own hooks, and a pipeline that uses
`hidden_states[-2]` must get the steered ones.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from cliplens.errors import unknown_name
from cliplens.sites import Side, Site
from cliplens_plugins.steering.ports.compiled import uncompiled, unwrapped
from cliplens_plugins.steering.ports.port import Port
from cliplens_plugins.steering.ports.rewriting import Rewrite, on_direction, with_position

_BLOCK = re.compile(r"^blocks\.(\d+)\.(hook_\w+)$")
_IN_BLOCK = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
_PASSES: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""How often each encoder began to encode a prompt."""
FINAL = "hook_final"
"""Output of the last norm of a text encoder, at every position: the site of `ThroughProjection`."""
_LEGACY_EOS = 2  # in configs older than transformers#24773, the id 2 means the highest id of the sequence


def side_of(model: nn.Module) -> Side | None:
    """Return which tower a transformers module is; None if it is neither."""
    inner = inner_of(model)
    if inner is None:
        return None
    return "text" if hasattr(getattr(inner, "embeddings", None), "token_embedding") else "vision"


def inner_of(model: nn.Module) -> Any:
    """Return the module that holds `embeddings` and `encoder.layers`, or `patch_embed` and `blocks`; None without."""
    for name in ("", "text_model", "vision_model"):
        found: Any = model if not name else getattr(model, name, None)
        if found is not None and hasattr(getattr(found, "encoder", None), "layers") and hasattr(found, "embeddings"):
            return found
        if found is not None and isinstance(getattr(found, "blocks", None), nn.ModuleList):
            return found if hasattr(found, "patch_embed") and hasattr(found.blocks[0], "attn") else None
    return None


def n_layers(model: nn.Module) -> int:
    """Return the number of layers."""
    return len(_layers(inner_of(model)))


def hooks_of(model: nn.Module) -> list[str]:
    """Return the hook names a module has."""
    names = [f"blocks.{layer}.{hook}" for layer in range(n_layers(model)) for hook in _IN_BLOCK]
    if _projection(model) is not None:
        names += ["hook_pooled", "hook_projected", "hook_embedding"]
    elif hasattr(inner_of(model), "post_layernorm"):
        names.append("hook_pooled")
    return names


def before_site(model: nn.Module, hook: str) -> list[nn.Module]:
    """Return modules of the encoder whose outputs an edit at the site does not change: those before it."""
    inner, block = inner_of(model), _BLOCK.match(hook)
    layers = list(_layers(inner))
    first = [inner.embeddings] if hasattr(inner, "encoder") else []
    return first + (layers if block is None else layers[: int(block.group(1))])


def port(model: nn.Module, site: Site) -> Port:
    """Return the port of a site.

    Raises:
        UnknownNameError: this module has no such site; similar names are listed.
    """
    known = hooks_of(model)
    final = site.hook == FINAL and hasattr(inner_of(model), "final_layer_norm")
    if not final and site.hook not in known:
        raise unknown_name(f"site of the {site.side} encoder {type(model).__name__}", site.hook, known)
    return Port(site, _width(model, site.hook), lambda rewrite, _: _alone(model, site.hook, rewrite))


@contextmanager
def _alone(model: nn.Module, hook: str, rewrite: Rewrite) -> Iterator[None]:
    with uncompiled(model), attached(unwrapped(model), hook, rewrite):
        yield


@contextmanager
def attached(model: nn.Module, hook: str, rewrite: Rewrite, *, first_call_only: bool = False) -> Iterator[None]:
    """Rewrite a module's activations at a site while the context is open.

    Args:
        model: the encoder.
        hook: the hook name.
        rewrite: function that returns the new activations.
        first_call_only: whether only the first call of the module is steered.
    """
    with ExitStack() as stack:
        if first_call_only:
            rewrite = _in_first_call(model, rewrite, stack)
        special = _special_reader(model, stack)
        for module, change in _changes(model, hook, rewrite, special, stack):
            handle = module.register_forward_hook(change, prepend=True)
            stack.callback(handle.remove)
        yield


def begin_pass(model: nn.Module) -> None:
    """Let the next call of an encoder count as a first call: one context may encode a prompt several times."""
    _PASSES[model] = _PASSES.get(model, 0) + 1


def _in_first_call(model: nn.Module, rewrite: Rewrite, stack: ExitStack) -> Rewrite:
    calls, now = 0, _PASSES.get(model, 0)

    def count(module: nn.Module, args: Any) -> None:
        nonlocal calls, now
        calls, now = (calls if now == _PASSES.get(model, 0) else 0) + 1, _PASSES.get(model, 0)

    stack.callback(model.register_forward_pre_hook(count).remove)
    return lambda acts, special: rewrite(acts, special) if calls <= 1 else acts


Change = Callable[[nn.Module, Any, Any], Any]
Special = Callable[[], Tensor | None]


def _changes(
    model: nn.Module, hook: str, rewrite: Rewrite, special: Special, stack: ExitStack
) -> Iterator[tuple[nn.Module, Change]]:
    inner, block = inner_of(model), _BLOCK.match(hook)
    if block is not None:
        yield from _block_changes(inner, int(block.group(1)), block.group(2), rewrite, special, stack)
    elif hook == FINAL:
        yield inner.final_layer_norm, lambda _, args, output: rewrite(output, special())
    elif hook == "hook_pooled" and hasattr(inner, "post_layernorm"):
        yield inner.post_layernorm, _output_of_rows(rewrite)
    elif hook == "hook_pooled":
        handle = _projection(model).register_forward_pre_hook(
            lambda _, args: (with_position(rewrite, args[0]), *args[1:])
        )
        stack.callback(handle.remove)
    else:
        yield _projection(model), _output_of_rows(on_direction(rewrite) if hook == "hook_embedding" else rewrite)


def _block_changes(
    inner: Any, layer: int, hook: str, rewrite: Rewrite, special: Special, stack: ExitStack
) -> Iterator[tuple[nn.Module, Change]]:
    layers = _layers(inner)

    def change(module: nn.Module, args: Any, output: Any) -> Any:
        return _with_first(output, _rewritten(_first(output), rewrite, special))

    if hook == "hook_resid_pre" and not hasattr(inner, "encoder"):
        handle = layers[layer].register_forward_pre_hook(
            lambda _, args: (_rewritten(args[0], rewrite, special), *args[1:])
        )
        stack.callback(handle.remove)
    elif hook == "hook_resid_pre":
        before = layers[layer - 1] if layer else getattr(inner, "pre_layrnorm", inner.embeddings)
        yield before, change
    elif hook == "hook_resid_post":
        yield layers[layer], change
    elif hook == "hook_mlp_out":
        yield layers[layer].mlp, change
    elif hook == "hook_attn_out":
        yield _attention(layers[layer]), change
    else:
        yield _attention(layers[layer]), _mid_change(layers[layer], rewrite, special, stack)


def _mid_change(layer: nn.Module, rewrite: Rewrite, special: Special, stack: ExitStack) -> Change:
    entered: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered["stream"] = args[0] if args else kwargs["hidden_states"]

    def change(module: nn.Module, args: Any, output: Any) -> Any:
        out = _first(output)
        middle = entered["stream"] + out
        return _with_first(output, out + (_rewritten(middle, rewrite, special) - middle))

    handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
    stack.callback(handle.remove)
    return change


def _output_of_rows(rewrite: Rewrite) -> Change:
    return lambda _, args, output: with_position(rewrite, output)


def _special_reader(model: nn.Module, stack: ExitStack) -> Special:
    """Return a function that returns the position of CLS or EOT in the current batch of the module."""
    inner = inner_of(model)
    if side_of(model) == "vision":
        has_cls = hasattr(getattr(inner, "embeddings", None), "class_embedding")
        return lambda: torch.zeros(1, dtype=torch.int64) if has_cls else None
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is not None:
            seen["ids"] = ids

    handle = inner.register_forward_pre_hook(keep, with_kwargs=True)
    stack.callback(handle.remove)
    return lambda: _end_of(seen["ids"], getattr(inner.config, "eos_token_id", None)) if "ids" in seen else None


def _end_of(ids: Tensor, eos: int | None) -> Tensor:
    if eos is None or eos == _LEGACY_EOS:
        return ids.to(torch.int).argmax(dim=-1)
    return (ids == eos).int().argmax(dim=-1)


def _projection(model: nn.Module) -> Any:
    return getattr(model, "text_projection", None) or getattr(model, "visual_projection", None)


def _width(model: nn.Module, hook: str) -> int:
    if hook in ("hook_projected", "hook_embedding"):
        return int(_projection(model).out_features)
    inner = inner_of(model)
    return int(inner.config.hidden_size if hasattr(inner, "encoder") else inner.blocks[0].norm1.weight.shape[0])


def _layers(inner: Any) -> Any:
    return inner.encoder.layers if hasattr(inner, "encoder") else inner.blocks


def _attention(layer: Any) -> nn.Module:
    found: nn.Module = layer.self_attn if hasattr(layer, "self_attn") else layer.attn
    return found


def _rewritten(acts: Tensor, rewrite: Rewrite, special: Special) -> Tensor:
    """Rewrite activations, adding a batch axis for towers that pack all images into one sequence."""
    return rewrite(acts[None], None)[0] if acts.ndim == 2 else rewrite(acts, special())


def _first(output: Any) -> Tensor:
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def _with_first(output: Any, new: Tensor) -> Any:
    return (new, *output[1:]) if isinstance(output, tuple) else new
