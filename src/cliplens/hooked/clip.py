"""The joint model of two towers. Its hook names start with `vision.` or `text.`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int, Int64
from PIL import Image
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from cliplens.errors import InputError, MismatchError
from cliplens.hooked.bank import ConceptLabels
from cliplens.hooked.base import Inputs
from cliplens.hooked.cache import JointCache
from cliplens.hooked.config import JointConfig
from cliplens.hooked.hook_view import HookView
from cliplens.hooked.identity import LiveIdentity
from cliplens.hooked.inputs import required, stacked_images, token_ids
from cliplens.hooked.joint import JointProof
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


class HookedCLIP(Splicing):
    """A two-tower model with hooks on both towers.

    `clip(images, tokens)` returns the logits of the stock model, `scale * cosine + bias`. The stock model is
    `clip.model`. It shares its weights with the towers and is not altered.
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

    def __repr__(self) -> str:
        towers = "".join(f"\n  {side}: {tower!r}" for side, tower in self.towers.items())
        return f"HookedCLIP({self.cfg.model_name!r}, {self.dtype}, {self.device}{towers})"

    def elsewhere(self, name: str) -> list[str]:
        """Return the attributes of the towers that have this name."""
        return [f"clip.{side}.{name}" for side, tower in self.towers.items() if name in dir(tower)]

    @property
    def cfg(self) -> JointConfig:
        """The configuration of both towers, with the current device and dtype of their weights."""
        both = {side: tower.cfg for side, tower in self.towers.items()}
        first = self._first.cfg
        return JointConfig(
            first.model_name, first.d_embed, both.get("vision"), both.get("text"), first.device, first.dtype
        )

    @property
    def towers(self) -> dict[Side, HookedTower]:
        """The towers of the model, by side."""
        both: dict[Side, HookedTower | None] = {"vision": self.vision, "text": self.text}
        return {side: tower for side, tower in both.items() if tower is not None}

    @property
    def hook_dict(self) -> dict[str, HookPoint]:
        """All hook points by joint name, those of spliced dictionaries included."""
        return {**self._joined("hook_dict"), "hook_logits": self.hook_logits}

    @property
    def mod_dict(self) -> dict[str, nn.Module]:
        """All hooked modules by joint name."""
        return {**self._joined("mod_dict"), "hook_logits": self.hook_logits}

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self._first.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the residual stream (of the vision tower where there are two towers)."""
        return self._first.input_dtype

    @property
    def identity(self) -> ModelIdentity:
        """The name of the model and the hash of its weights as they are now."""
        return self._identity.now()

    def train(self, mode: bool = True) -> "HookedCLIP":
        """Do nothing: towers run in eval mode. `clip.model.train()` changes the mode of the stock model."""
        return self

    def prove(self) -> None:
        """Compare the joint model with its towers now, and keep looking at each call whether its parts were exchanged.

        Raises:
            MismatchError: the model's own methods give something else than its encoders.
        """
        proof = JointProof(self.model, self.towers, self.logits)
        for tower in self.towers.values():
            borrow(tower, still=proof.check)

    def setup(self) -> None:
        """Set the names of the hook points of both towers again."""
        for tower in self.towers.values():
            tower.setup()

    def forward(self, images: Inputs | None, tokens: Inputs | None, stop_at_layer: int | None = None) -> Logits | None:
        """Return the image-text logits.

        Args:
            images: preprocessed images or pictures, or None to run the text tower alone.
            tokens: token ids or captions, or None to run the vision tower alone.
            stop_at_layer: block that both towers stop before.

        Returns:
            The logits of every image with every caption; None when a tower was stopped or got no inputs.
        """
        if stop_at_layer is not None:
            for tower, inputs in self._tower_inputs(images, tokens):
                tower(inputs, stop_at_layer=stop_at_layer)
            return None
        embeddings = [tower.encode(inputs)[1] for tower, inputs in self._tower_inputs(images, tokens)]
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
        """Return `scale` and `bias` of the logits, `scale * cosine + bias`; the bias is None where the model has none.

        Raises:
            InputError: the model has no `logit_scale`.
        """
        scale = getattr(self.model, "logit_scale", None)
        if not isinstance(scale, Tensor):
            raise InputError(
                expected="a joint model with `logit_scale`, the logarithm of the scale of its logits",
                found=f"{type(self.model).__name__} without one",
                fix="register it on the model (a 0-d tensor), or compare clip.encode_image with clip.encode_text",
            )
        return scale.exp(), getattr(self.model, "logit_bias", None)

    def encode_image(self, image: Inputs, normalize: bool = False) -> Float[Tensor, "batch *pos d_embed"]:
        """Return image embeddings, normalised if `normalize`, as open_clip's `encode_image` does."""
        tower = self._tower("vision")
        return tower.encode(image)[1] if normalize else tower(image)

    def encode_text(self, text: Inputs, normalize: bool = False) -> Float[Tensor, "batch *pos d_embed"]:
        """Return text embeddings, normalised if `normalize`, as open_clip's `encode_text` does."""
        tower = self._tower("text")
        return tower.encode(text)[1] if normalize else tower(text)

    def batch(self, pairs: Iterable[Pair] | Pair) -> tuple[Images | None, Tokens | None]:
        """Return preprocessed images and token ids of pairs, on the model's device, as `forward` takes them.

        Images are None when no pair has one, or without a vision tower; tokens likewise.

        Raises:
            BadPairError: an image cannot be opened, or some pairs have an image or a caption and others do not.
            InputError: there are no pairs, or the model has no preprocess or no tokenizer.
        """
        several = [pairs] if isinstance(pairs, Pair) else list(pairs) if isinstance(pairs, Iterable) else []
        if not several or not all(isinstance(pair, Pair) for pair in several):
            raise InputError(
                expected="pairs, such as read_pairs(...)[:8]",
                found=f"a {type(several[0] if several else pairs).__name__}" if several or pairs is None else "none",
                fix="pass clip.batch(cliplens.read_pairs([(image, caption), ...]))",
            )
        images = None if self.vision is None else stacked_images(several, self.preprocess)
        tokens = None if self.text is None else token_ids(several, self.tokenizer)
        return (
            None if images is None else images.to(self.device, self.dtype),
            None if tokens is None else tokens.to(self.device),
        )

    @torch.no_grad()
    def class_prototypes(
        self, classes: Sequence[str], *, templates: Sequence[str] = TEMPLATES
    ) -> Float[Tensor, "class d_embed"]:
        """Return one unit-norm prototype per class: the mean embedding of its name in each template.

        Args:
            classes: class names.
            templates: sentences with `{}` in place of the class name.

        Raises:
            InputError: the model has no text tower or tokenizer, or no class or template is given.
        """
        tokenizer = required("tokenizer", self.tokenizer)
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
            templates: sentences with `{}` in place of the class name.

        Raises:
            InputError: the model lacks a tower or a tokenizer, or no class or template is given.
        """
        return classify(self.encode_image(images), self.class_prototypes(classes, templates=templates))

    def set_text_bank(
        self, captions: Sequence[str], labels: ConceptLabels | Int[Tensor, " image"] | None = None
    ) -> None:
        """Make the vision tower a zero-shot classifier over these captions, with the model's own scale and bias.

        Args:
            captions: one class per caption.
            labels: the right class of each image, for losses of the classifier.

        Raises:
            InputError: the model has no text tower or no tokenizer.
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
        """Return the width of one row of activations at the site.

        Raises:
            UnknownNameError: no hook has that name.
        """
        site = Site.parse(site) if isinstance(site, str) else site
        return self._tower(site.side).width(site.hook)

    def hook_for(self, name: str, hook: HookFn) -> HookFn:
        """Return the hook such that it is called with the joint name of its hook point."""

        def renamed(activation: Any, *, hook: HookPoint) -> Any:
            return original(activation, hook=HookView(name, hook))

        original = hook
        return renamed

    @property
    def splices(self) -> dict[str, Splice]:
        """The dictionaries spliced into the towers, by the joint name of the hook that each writes."""
        return self._joined("splices")

    def prefixes(self) -> tuple[str, ...]:
        """Return the prefixes of joint hook names: `vision.` and `text.`, or the one of the only tower."""
        return tuple(f"{side}." for side in self.towers)

    def check_compatible(self, dictionary: Any, hooks: Sequence[str]) -> None:
        """Check that a dictionary was trained on these weights and at these hooks, as far as its metadata say.

        Raises:
            MismatchError: it was trained on other weights or at other hooks.
        """
        if not isinstance(dictionary, nn.Module):
            dictionary.check(self, [Site.parse(name) for name in hooks])
            return
        made_on = getattr(getattr(dictionary.cfg, "metadata", None), "weights_sha256", None)
        if made_on is not None and made_on != self.identity.weights_sha256:
            raise MismatchError(
                expected=f"a dictionary trained on {self.identity.name} ({self.identity.weights_sha256[:12]})",
                found=f"one trained on weights {made_on[:12]}",
                fix="load the model that the dictionary was trained on",
            )

    def tower_of(self, hook: str, side: str | None) -> tuple[HookedTower, str]:
        """Return the tower of a hook, and the name of the hook in that tower.

        Args:
            hook: a joint name, or a name within a tower.
            side: the tower of a name without prefix.

        Raises:
            InputError: the name has no prefix and `side` is None, or the model has no such tower.
        """
        first = hook.partition(".")[0]
        named = first if first in SIDES else side
        if named not in SIDES:
            raise InputError(
                expected="a dictionary whose metadata name the tower, in clip_tower or as a prefix of hook_name",
                found=f"hook_name={hook!r}, clip_tower={side!r}",
                fix="pass add_sae(..., hook='vision." + hook + "'), or add the dictionary to clip.vision or clip.text",
            )
        return self._tower(named).tower_of(hook, side if first not in SIDES else None)

    def cache_of(self, activations: dict[str, Tensor], has_batch_dim: bool) -> JointCache:
        """Return a cache with joint names, and with the cache of each tower as `.vision` and `.text`."""
        return JointCache(activations, self.towers, has_batch_dim)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the state dict of the stock model."""
        return self.model.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load weights into the stock model, and so into the towers."""
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
                fix="use a tower that the model has",
            )
        return tower

    def _tower_inputs(self, images: Inputs | None, tokens: Inputs | None) -> Iterator[tuple[HookedTower, Inputs]]:
        if images is not None:
            yield self._tower("vision"), images
        if tokens is not None:
            yield self._tower("text"), tokens

    def _joined(self, which: str) -> dict[str, Any]:
        parts = ([(f"{side}.{n}", m) for n, m in getattr(t, which).items()] for side, t in self.towers.items())
        return dict(chain.from_iterable(parts))
