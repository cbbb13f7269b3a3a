"""Both towers together: the joint model, whose hooks carry `vision.` and `text.` before the towers' own names."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int, Int64
from PIL import Image
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from cliplens.errors import BadPairError, InputError, MismatchError
from cliplens.hooked.bank import ConceptLabels
from cliplens.hooked.base import Inputs
from cliplens.hooked.cache import JointCache
from cliplens.hooked.identity import LiveIdentity
from cliplens.hooked.part import active, borrow, hook_point
from cliplens.hooked.root import HookFn
from cliplens.hooked.splice import Splice
from cliplens.hooked.splicing import Splicing
from cliplens.hooked.text import HookedTextTower, TokenizerShim
from cliplens.hooked.tower import HookedTower
from cliplens.hooked.vision import HookedVisionTower
from cliplens.hooked.zero_shot import TEMPLATES, class_prototypes, classify
from cliplens.records import ModelIdentity, Pair
from cliplens.shapes import Images, Logits, Tokens
from cliplens.sites import SIDES, Side, Site

_LAYER = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


class HookView:
    """A hook point as a hook sees it that was added at the joint model: under its joint name."""

    def __init__(self, name: str, point: HookPoint) -> None:
        self.name = name
        self._point = point

    def layer(self) -> int:
        """The block the hook lies in.

        Raises:
            ValueError: it lies in none.
        """
        found = _LAYER.search(self.name)
        if found is None:
            raise ValueError(f"{self.name} lies in no block")
        return int(found.group(1))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._point, name)


class HookedCLIP(Splicing):
    """A two-tower model with hooks on both towers.

    `clip(images, tokens)` are the logits of the stock model: scaled, and with its bias where it has one. The stock
    model is `clip.model`; it shares its weights with the towers and is itself unaltered.
    """

    tokenizer: Callable[[Sequence[str]], Tensor] | None
    preprocess: Callable[[Image.Image], Tensor] | None
    vision: HookedVisionTower | None
    text: HookedTextTower | None

    def __init__(
        self,
        model: nn.Module,
        *,
        vision: HookedVisionTower | None,
        text: HookedTextTower | None,
        preprocess: Callable[[Image.Image], Tensor] | None,
        tokenizer: Callable[[Sequence[str]], Tensor] | None,
        identity: ModelIdentity,
    ) -> None:
        super().__init__()
        self.model, self.vision, self.text = model, vision, text
        borrow(self, preprocess=preprocess, tokenizer=tokenizer, _identity=LiveIdentity(model, identity))
        if vision is not None:
            borrow(vision, preprocess=preprocess)
        if text is not None and tokenizer is not None:
            borrow(text, tokenizer=TokenizerShim(tokenizer))
        for tower in self.towers.values():
            tower.belongs_to(identity.name)
        self.hook_logits = hook_point(None)
        self.hook_logits.name = "hook_logits"

    @property
    def towers(self) -> dict[Side, HookedTower]:
        """The towers there are."""
        both: dict[Side, HookedTower | None] = {"vision": self.vision, "text": self.text}
        return {side: tower for side, tower in both.items() if tower is not None}

    @property
    def hook_dict(self) -> dict[str, HookPoint]:
        """All hook points by joint name; what is spliced into a tower shows here at once."""
        return {**self._joined("hook_dict"), "hook_logits": self.hook_logits}

    @property
    def mod_dict(self) -> dict[str, nn.Module]:
        """All hooked parts by joint name."""
        return {**self._joined("mod_dict"), "hook_logits": self.hook_logits}

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return self._first.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the residual stream, the vision tower's where there are two."""
        return self._first.input_dtype

    @property
    def identity(self) -> ModelIdentity:
        """Return which model this is; the hash of the weights follows changes of them."""
        return self._identity.now()

    def train(self, mode: bool = True) -> "HookedCLIP":
        """Do nothing: towers run in eval mode. Use `clip.model.train()` for the mode of the stock model itself."""
        return self

    def setup(self) -> None:
        """Name the towers' hook points anew."""
        for tower in self.towers.values():
            tower.setup()

    def forward(self, images: Inputs | None, tokens: Inputs | None, stop_at_layer: int | None = None) -> Logits | None:
        """Image-text logits.

        Args:
            images: preprocessed images or pictures, or None to run the text tower alone.
            tokens: token ids or captions, or None to run the vision tower alone.
            stop_at_layer: stops both towers there.

        Returns:
            The logits; None when a tower did not run to its end or did not run.
        """
        if stop_at_layer is not None:
            for tower, inputs in self._given(images, tokens):
                tower(inputs, stop_at_layer=stop_at_layer)
            return None
        embeddings = [tower.encode(inputs)[1] for tower, inputs in self._given(images, tokens)]
        if images is None or tokens is None:
            return None
        return self.logits(*embeddings)

    def logits(
        self, image_embedding: Float[Tensor, "image d_embed"], text_embedding: Float[Tensor, "text d_embed"]
    ) -> Logits:
        """Compute `scale * cosine + bias` from unit-norm embeddings, with the stock model's scale and bias.

        Raises:
            InputError: the model has no `logit_scale`.
        """
        scale, bias = self.logit_scale_and_bias()
        logits = scale * image_embedding @ text_embedding.T
        if bias is not None:
            logits = logits + bias
        return self.hook_logits(logits) if active(self.hook_logits) else logits

    def logit_scale_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """Return what cosines are multiplied by to give logits, and what is added (None where nothing is).

        Raises:
            InputError: the model has no `logit_scale`, so its logits are not known.
        """
        scale = getattr(self.model, "logit_scale", None)
        if not isinstance(scale, Tensor):
            raise InputError(
                expected="a joint model with `logit_scale`, the logarithm of what cosines are multiplied by",
                found=f"{type(self.model).__name__} without one",
                fix="register it on the model (a 0-d tensor), or compare clip.encode_image with clip.encode_text",
            )
        return scale.exp(), getattr(self.model, "logit_bias", None)

    def encode_image(self, image: Inputs, normalize: bool = False) -> Float[Tensor, "batch *pos d_embed"]:
        """Return image embeddings, as open_clip's method does: unnormalised unless asked."""
        tower = self._tower("vision")
        return tower.encode(image)[1] if normalize else tower(image)

    def encode_text(self, text: Inputs, normalize: bool = False) -> Float[Tensor, "batch *pos d_embed"]:
        """As open_clip's: text embeddings, unnormalised unless asked."""
        tower = self._tower("text")
        return tower.encode(text)[1] if normalize else tower(text)

    def batch(self, pairs: Iterable[Pair]) -> tuple[Images | None, Tokens | None]:
        """Return preprocessed images and token ids of pairs, on the model's device, as `forward` takes them.

        Images are None when no pair has one, or without a vision tower; tokens likewise.

        Raises:
            BadPairError: an image cannot be opened, or some pairs have an image or a caption and others do not.
            InputError: the model has no preprocess or no tokenizer.
        """
        several = list(pairs)
        images, tokens = None, None
        if self.vision is not None and _all_have("image", [(p.id, p.source) for p in several]):
            preprocess = self._needed("preprocess", self.preprocess)
            images = torch.stack([preprocess(pair.image) for pair in several]).to(self.device, self.dtype)
        if self.text is not None and _all_have("caption", [(p.id, p.caption) for p in several]):
            tokenizer = self._needed("tokenizer", self.tokenizer)
            tokens = tokenizer([str(pair.caption) for pair in several]).long().to(self.device)
        return images, tokens

    @torch.no_grad()
    def class_prototypes(
        self, classes: Sequence[str], *, templates: Sequence[str] = TEMPLATES
    ) -> Float[Tensor, "class d_embed"]:
        """Return one unit-norm prototype per class: the mean embedding of its name in each template.

        Args:
            classes: class names.
            templates: sentences with `{}` where the class name goes.

        Raises:
            InputError: the model has no text tower or tokenizer, or no class or template is given.
        """
        if self.tokenizer is None:
            raise InputError(
                expected="a model with a tokenizer", found="none", fix="give cliplens.wrap(model, tokenizer=...)"
            )
        tokenizer = self.tokenizer
        return class_prototypes(lambda texts: self.encode_text(tokenizer(texts)), classes, templates)

    @torch.no_grad()
    def zero_shot(
        self,
        images: Float[Tensor, "batch 3 height width"],
        classes: Sequence[str],
        *,
        templates: Sequence[str] = TEMPLATES,
    ) -> Int64[Tensor, " batch"]:
        """Return the class of each image: the index of the nearest prototype by cosine.

        Args:
            images: preprocessed images.
            classes: class names.
            templates: sentences with `{}` where the class name goes.

        Raises:
            InputError: the model lacks a tower or a tokenizer, or no class or template is given.
        """
        return classify(self.encode_image(images), self.class_prototypes(classes, templates=templates))

    def set_text_bank(
        self, captions: Sequence[str], labels: ConceptLabels | Int[Tensor, " image"] | None = None
    ) -> None:
        """Give the vision tower captions to answer in: a zero-shot classifier with the model's own scale and bias.

        Raises:
            InputError: the model came without a text tower or a tokenizer.
        """
        text: Any = self._tower("text")
        scale, bias = self.logit_scale_and_bias()
        self._tower("vision").set_bank(
            text(text.to_tokens(captions)),
            captions,
            scale=float(scale),
            bias=0.0 if bias is None else float(bias),
            labels=labels,
        )

    def width(self, site: Site | str) -> int:
        """How wide one row at the site is.

        Raises:
            UnknownNameError: there is no such hook.
        """
        site = Site.parse(site) if isinstance(site, str) else site
        return self._tower(site.side).width(site.hook)

    def hook_for(self, name: str, hook: HookFn) -> HookFn:
        """Hooks added at the joint model are told the joint name."""

        def told(activation: Any, *, hook: HookPoint) -> Any:
            return original(activation, hook=HookView(name, hook))

        original = hook
        return told

    @property
    def splices(self) -> dict[str, Splice]:
        """What is spliced into either tower now, by the joint name of the hook each one writes."""
        return self._joined("splices")

    def prefixes(self) -> tuple[str, ...]:
        """Those of the towers there are."""
        return tuple(f"{side}." for side in self.towers)

    def check_compatible(self, dictionary: Any, hooks: Sequence[str]) -> None:
        """Refuse a dictionary that says it was made on other weights, or on other sites than these.

        Raises:
            MismatchError: says both.
        """
        if not isinstance(dictionary, nn.Module):
            dictionary.check(self, [Site.parse(name) for name in hooks])
            return
        made_on = getattr(getattr(dictionary.cfg, "metadata", None), "weights_sha256", None)
        if made_on is not None and made_on != self.identity.weights_sha256:
            raise MismatchError(
                expected=f"a dictionary made on this model, {self.identity.name} ({self.identity.weights_sha256[:12]})",
                found=f"one made on weights {made_on[:12]}",
                fix="load the model it was made on",
            )

    def tower_of(self, hook: str, side: str | None) -> tuple[HookedTower, str]:
        """The tower a joint name means, or that a dictionary names beside a bare one."""
        first = hook.partition(".")[0]
        named = first if first in SIDES else side
        if named not in SIDES:
            raise InputError(
                expected="a dictionary that names its tower, in clip_tower or before its hook_name",
                found=f"hook_name={hook!r}, clip_tower={side!r}",
                fix="give add_sae(..., hook='vision." + hook + "'), or splice it into clip.vision or clip.text",
            )
        return self._tower(named).tower_of(hook, side if first not in SIDES else None)

    def cache_of(self, activations: dict[str, Tensor], has_batch_dim: bool) -> JointCache:
        """Joint names, with each tower's own cache as `.vision` and `.text`."""
        return JointCache(activations, self.towers, has_batch_dim)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The stock model's own state dict."""
        return self.model.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load weights into the stock model the towers share."""
        return self.model.load_state_dict(state_dict, strict=strict, assign=assign)

    @property
    def _first(self) -> HookedTower:
        return next(iter(self.towers.values()))

    def _tower(self, side: Side) -> HookedTower:
        tower = self.towers.get(side)
        if tower is None:
            raise InputError(
                expected=f"a model with a {side} tower",
                found=f"one with {', '.join(self.towers)} only",
                fix="use that one",
            )
        return tower

    def _needed(self, name: str, tool: Callable[..., Tensor] | None) -> Callable[..., Tensor]:
        if tool is None:
            raise InputError(
                expected=f"a model with its {name}", found="none", fix=f"pass it: cliplens.wrap(model, {name}=...)"
            )
        return tool

    def _given(self, images: Inputs | None, tokens: Inputs | None) -> Iterator[tuple[HookedTower, Inputs]]:
        if images is not None:
            yield self._tower("vision"), images
        if tokens is not None:
            yield self._tower("text"), tokens

    def _joined(self, which: str) -> dict[str, Any]:
        parts = ([(f"{side}.{n}", m) for n, m in getattr(t, which).items()] for side, t in self.towers.items())
        return dict(chain.from_iterable(parts))


def _all_have(what: str, given: Sequence[tuple[str, object]]) -> bool:
    """Whether all pairs, rather than none, have an image or a caption."""
    without = [pair_id for pair_id, value in given if value is None]
    if without and len(without) < len(given):
        raise BadPairError(without[0], f"no {what}")
    return bool(given) and not without
