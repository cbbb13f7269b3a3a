"""Read the activations of one batch at sites of both towers."""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from cliplens.errors import InputError, MismatchError, unknown_name
from cliplens.hooked import CompiledReading, HookedCLIP, HookedTower
from cliplens.pairs import Decoded, Decoder, Pairs, tokenised
from cliplens.sites import Side, Site, as_sites
from cliplens.stream.acts import ReadBatch, SiteActs, full_lengths, mean

Token = Literal["auto", "cls", "eot", "mean", "patches", "all"]
TOKENS: tuple[str, ...] = get_args(Token)
AUTOCASTS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_ONE_SIDE: dict[str, Side] = {"cls": "vision", "patches": "vision", "eot": "text"}


class SiteReader:
    """Read activations at sites of both towers, in one forward pass per tower that stops after the deepest site.

    Args:
        clip: the model.
        sites: sites, or their names; several per tower are allowed.
        token: the position that represents a sample at hooks with more than one position: "auto" takes CLS for images
            (the mean in towers without a class token) and EOT for captions; "mean" averages the positions that are not
            padding; "all" keeps them all; "patches" keeps those of an image without CLS.
        autocast: "bfloat16" or "float16" runs matrix products in that dtype (`torch.autocast`); rows are float32.
        compiled: largest number of pairs per batch for `torch.compile` (`cliplens.hooked.CompiledReading`); results
            agree up to rounding. None runs the model as it is.

    Raises:
        UnknownNameError: the hook or the token choice is unknown.
        InputError: the token choice belongs to one tower, and there are sites of the other.
    """

    def __init__(
        self,
        clip: HookedCLIP,
        sites: Sequence[Site | str],
        token: str = "auto",
        autocast: str | None = None,
        compiled: int | None = None,
    ) -> None:
        if token not in TOKENS:
            raise unknown_name("token choice", token, TOKENS)
        if autocast is not None and autocast not in AUTOCASTS:
            raise unknown_name("autocast dtype", autocast, AUTOCASTS)
        self.autocast, self.compiled = autocast, compiled
        self.clip = clip
        self._compiled: dict[Side, CompiledReading] = {}
        self.sites = as_sites(sites)
        self.token = token
        self.widths = {site: clip.width(site) for site in self.sites}
        if not self.sites:
            raise InputError(
                expected="at least one site to read", found="none", fix="pass a hook such as 'hook_embedding'"
            )
        wrong = [str(s) for s in self.sites if _ONE_SIDE.get(token, s.side) != s.side]
        if wrong:
            raise InputError(
                expected=f"sites of the {_ONE_SIDE[token]} tower for token={token!r}",
                found=", ".join(wrong),
                fix="pass token='auto', or read the towers one at a time",
            )
        if self.reads("text") and clip.text is None:
            raise InputError(
                expected="a model with a text tower",
                found=clip.identity.name,
                fix="read sites of its vision tower only",
            )

    def reads(self, side: Side) -> bool:
        """Return whether any site lies in that tower."""
        return any(s.side == side for s in self.sites)

    def decoder(self, pairs: Pairs) -> Decoder:
        """Return a decoder that prepares these pairs for the towers that are read.

        Raises:
            InputError: the pairs lack images or captions, or the model has no preprocess or tokenizer.
        """
        for side, has, what in (("vision", pairs.has_images, "images"), ("text", pairs.has_captions, "captions")):
            if self.reads(side) and not has:  # type: ignore[arg-type]
                raise InputError(
                    expected=f"pairs with {what}, which {side} sites need",
                    found=f"{pairs.name!r} without {what}",
                    fix=f"name the column of {what}, or read the other tower only (--tower)",
                )
        for side, tool, what in (
            ("vision", self.clip.preprocess, "preprocess"),
            ("text", self.clip.tokenizer, "tokenizer"),
        ):
            if self.reads(side) and tool is None:  # type: ignore[arg-type]
                raise InputError(
                    expected=f"a model with its {what}", found="none", fix=f"pass it: cliplens.wrap(model, {what}=...)"
                )
        return Decoder(pairs, self.clip.preprocess if self.reads("vision") else None, self.reads("text"))

    @torch.no_grad()
    def read(self, decoded: Decoded) -> ReadBatch:
        """Return the activations of one decoded batch, float32, on the model's device."""
        out: dict[Site, SiteActs] = {}
        tokens, truncated = None, 0
        if decoded.pictures is not None and self.clip.vision is not None:
            images = decoded.pictures.on(self.clip.device).to(self.clip.dtype)
            out.update(self._side(self.clip.vision, "vision", images))
        if decoded.captions is not None and self.clip.text is not None and self.clip.tokenizer is not None:
            said = tokenised(decoded.captions, self.clip.tokenizer)
            tokens, truncated = said.tokens, said.truncated
            out.update(self._side(self.clip.text, "text", tokens.to(self.clip.device)))
        return ReadBatch(decoded, {s: out[s] for s in self.sites}, tokens, truncated)

    def _side(self, tower: HookedTower, side: Side, inputs: Tensor) -> Iterator[tuple[Site, SiteActs]]:
        sites = [s for s in self.sites if s.side == side]
        if not sites:
            return
        with torch.autocast(inputs.device.type, AUTOCASTS.get(self.autocast or ""), enabled=bool(self.autocast)):
            read = self._read_hooks(tower, side, inputs, [s.hook for s in sites])
        if self.token == "patches" and all(found.shape[1] == 1 for found in read.values()):
            raise MismatchError(
                expected="a hook with patch positions for token='patches'",
                found=f"hooks with one position ({', '.join(read)})",
                fix="use token='auto'",
            )
        for hook, found in read.items():
            acts = found.flatten(2).float()
            one = acts.shape[1] == 1
            yield (
                Site(side, hook),
                SiteActs(acts, full_lengths(acts), "single") if one else self._chosen(tower, acts, inputs),
            )

    def _read_hooks(self, tower: HookedTower, side: Side, inputs: Tensor, hooks: list[str]) -> dict[str, Tensor]:
        if self.compiled is None:
            return tower.read(inputs, hooks)
        if side not in self._compiled:
            self._compiled[side] = CompiledReading(self.clip.model, tower, side, hooks, self.compiled)
        return self._compiled[side](inputs)

    def _chosen(self, tower: HookedTower, acts: Float[Tensor, "pair pos d_in"], inputs: Tensor) -> SiteActs:
        images = inputs.is_floating_point()
        # hook_patch_embed has no class token yet.
        vision = self.clip.vision
        leading = vision.n_special if vision is not None and images and acts.shape[1] == tower.cfg.n_ctx else 0
        if self.token == "patches":
            return SiteActs(acts[:, leading:], full_lengths(acts[:, leading:]), "patches")
        classless = images and not (leading and tower.has_class_token)
        special = None if classless and self.token != "cls" else tower.special_position(inputs).to(acts.device).long()
        lengths = full_lengths(acts) if images or special is None else _lengths(inputs.to(acts.device), special)
        if self.token == "all":
            return SiteActs(acts, lengths, "all", special)
        if self.token == "mean" or special is None:
            return mean(SiteActs(acts, lengths, "all"))
        picked = acts[torch.arange(len(acts), device=acts.device), special][:, None]
        return SiteActs(picked, full_lengths(picked), "cls" if images else "eot")


def _lengths(tokens: Int[Tensor, "pair context"], special: Int64[Tensor, " pair"]) -> Int64[Tensor, " pair"]:
    """Return the number of positions up to the last non-padding token (id 0 is padding) and the special position."""
    positions = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    last = torch.where(tokens != 0, positions, 0).amax(1)
    return torch.maximum(last, special + 1)
