"""The joint model of two towers. Its hook names start with `vision.` or `text.`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, Int64
from PIL import Image
from torch import Tensor, nn

from cliplens.errors import InputError
from cliplens.hooked.bank import ConceptLabels
from cliplens.hooked.base import Inputs
from cliplens.hooked.config import JointConfig
from cliplens.hooked.identity import LiveIdentity
from cliplens.hooked.inputs import required, stacked_images, token_ids
from cliplens.hooked.joint import JointProof
from cliplens.hooked.joint_root import JointRoot
from cliplens.hooked.part import active, borrow
from cliplens.hooked.text import HookedTextTower, TokenizerShim
from cliplens.hooked.tower import HookedTower
from cliplens.hooked.vision import HookedVisionTower
from cliplens.hooked.zero_shot import TEMPLATES, check_classes, class_prototypes, classify
from cliplens.records import ModelIdentity, Pair
from cliplens.shapes import Images, Logits, Tokens


class HookedCLIP(JointRoot):
    """A two-tower model with hooks on both towers.

    `clip(images, tokens)` returns the logits of the stock model, `scale * cosine + bias`. The stock model is
    `clip.model`. It shares its weights with the towers and is not altered.
    """

    tokenizer: Callable[[Sequence[str]], Tensor] | None
    preprocess: Callable[[Image.Image], Tensor] | None

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
        """Compare the joint model with its towers now, and check at each call that its parts were not replaced.

        Raises:
            MismatchError: the model's own methods have other outputs than its encoders.
        """
        proof = JointProof(self.model, self.towers, self.logits)
        for tower in self.towers.values():
            borrow(tower, still=proof.check)

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
        tower = self.tower("vision")
        return tower.encode(image)[1] if normalize else tower(image)

    def encode_text(self, text: Inputs, normalize: bool = False) -> Float[Tensor, "batch *pos d_embed"]:
        """Return text embeddings, normalised if `normalize`, as open_clip's `encode_text` does."""
        tower = self.tower("text")
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
            InputError: the model has no text tower or tokenizer, no class or template is given, or the tokens of two
                different names are equal in every template (cut off by the context, or unknown to the tokenizer).
            NonFiniteError: an embedding holds nan or inf.
        """
        tokenizer = required("tokenizer", self.tokenizer)
        check_classes(tokenizer, classes, templates)
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
            NonFiniteError: an embedding holds nan or inf.
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
            InputError: the model has no text tower or no tokenizer, or there is no list of captions.
        """
        if isinstance(captions, str) or not len(captions):
            raise InputError(
                expected="a list of captions, one per class",
                found=repr(captions),
                fix=f"pass [{captions or 'a dog'!r}]",
            )
        text: Any = self.tower("text")
        scale, bias = self.logit_scale_and_bias()
        self.tower("vision").set_bank(
            text(text.to_tokens(captions)),
            captions,
            scale=float(scale.detach()),
            bias=0.0 if bias is None else float(bias.detach()),
            labels=labels,
        )

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the state dict of the stock model."""
        return self.model.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load weights into the stock model, and so into the towers."""
        return self.model.load_state_dict(state_dict, strict=strict, assign=assign)

    @property
    def _first(self) -> HookedTower:
        return next(iter(self.towers.values()))

    def _tower_inputs(self, images: Inputs | None, tokens: Inputs | None) -> Iterator[tuple[HookedTower, Inputs]]:
        if images is not None:
            yield self.tower("vision"), images
        if tokens is not None:
            yield self.tower("text"), tokens
