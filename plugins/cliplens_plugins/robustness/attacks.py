"""The attacks of a study: which losses, restricted to which latents, towards which goals."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cliplens.errors import CliplensError
from cliplens.studies import site_of
from cliplens_plugins.robustness import losses
from cliplens_plugins.robustness.eye import Reader
from cliplens_plugins.robustness.lab import Book, Lab
from cliplens_plugins.robustness.pgd import Objective

_ONE_POSITION = ("auto", "cls", "eot")
_EMBEDDING = "hook_embedding"


@dataclass(frozen=True)
class Attack:
    """One attack: its kind, the latents it is restricted to, and what it maximises."""

    kind: str
    latents: str
    objective: Objective


def attacks_of(lab: Lab, eps: float) -> list[Attack]:
    """Return the attacks that were asked for. Goals from captions are tried at the largest eps alone."""
    subject, clean, eye, found = lab.subject, lab.clean, lab.eye, []
    scale, _ = lab.run.clip.logit_scale_and_bias()
    for name in lab.attacks:
        if name in ("margin", "ce"):
            how: dict[str, Any] = {"loss": name, "scale": float(scale.detach())}
            aim = losses.zero_shot(eye, subject.prototypes, subject.labels, **how)
            found.append(Attack("zero-shot margin" if name == "margin" else "zero-shot cross-entropy", "-", aim))
        elif name == "feature":
            found.append(Attack("feature", "-", losses.feature(eye, clean.raw)))
        elif name == "caption":
            found.append(Attack("to the caption", "-", losses.caption(eye, subject.goals)))
        elif name == "class":
            for latents, mask in _sets(lab.own):
                found.append(Attack("latents moved", latents, losses.class_untargeted(eye, mask, clean.pre)))
        else:
            goals = {"latents to the picture": clean.pre[subject.target]}
            if eps == max(lab.eps) and (said := _caption_goals(lab)) is not None:
                goals["latents to the caption"] = said
            for kind, goal in goals.items():
                for latents, mask in _sets(lab.own):
                    found.append(Attack(kind, latents, losses.class_targeted(eye, mask, goal)))
    return found


def _sets(book: Book) -> list[tuple[str, Tensor]]:
    """Return the sets of latents that attacks are restricted to: classes, a random set as large as each, all living."""
    found = []
    for name in book.classes:
        found.append((name, book.groups.of(name)))
        found.append((f"random as {name}", book.attacked[name]))
    found.append(("all", book.scored.alive))
    return [(name, torch.as_tensor(mask)) for name, mask in found]


@torch.no_grad()
def _caption_goals(lab: Lab) -> Tensor | None:
    """Return the pre-activations of each target's caption, or None where a caption has other positions."""
    if lab.subject.captions is None:
        return None
    clip, dictionary = lab.run.clip, lab.run.dictionary
    try:
        site = site_of(dictionary, "text")
    except CliplensError:
        return None
    tokenizer, tower = clip.tokenizer, clip.text
    assert tokenizer is not None
    assert tower is not None
    tokens = tokenizer(list(lab.subject.captions)).to(clip.device)
    token = dictionary.provenance.token if dictionary.provenance else "auto"
    acts = tower.read(tokens, [site.hook])[site.hook].flatten(2) if site.hook != _EMBEDDING else None
    if acts is None:
        rows = clip.encode_text(tokens, normalize=True).flatten(1)
    elif token in _ONE_POSITION:
        rows = acts[torch.arange(len(acts)), tower.special_position(tokens)]
    else:
        return None
    said = Reader(dictionary, "text").read(rows)[1][:, None]
    return said[lab.subject.target] if lab.clean.pre.shape[1] == 1 else None
