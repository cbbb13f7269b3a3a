"""A site is a place to read or write: a tower and a hook name, `vision.blocks.9.hook_resid_post`."""

import re
from dataclasses import dataclass
from typing import Literal

from cliplens.errors import InputError

Side = Literal["vision", "text"]
Modality = Literal["image", "text"]
SIDES: tuple[Side, ...] = ("vision", "text")
MODALITIES: tuple[Modality, ...] = ("image", "text")
MODALITY_OF: dict[Side, Modality] = {"vision": "image", "text": "text"}
SIDE_OF: dict[Modality, Side] = {"image": "vision", "text": "text"}
_BLOCK = re.compile(r"^blocks\.(\d+)\.")


@dataclass(frozen=True, order=True)
class Site:
    """One hook of one tower. `str(site)` is its name at the joint model, `site.hook` its name at the tower."""

    side: Side
    hook: str

    def __str__(self) -> str:
        return f"{self.side}.{self.hook}"

    @property
    def modality(self) -> Modality:
        """What the tower sees: the vision tower images, the text tower text."""
        return MODALITY_OF[self.side]

    @property
    def layer(self) -> int | None:
        """The block the hook lies in; None for hooks outside the blocks."""
        found = _BLOCK.match(self.hook)
        return int(found.group(1)) if found else None

    @property
    def stop_at_layer(self) -> int | None:
        """The first block that need not run to read this site; None when the whole tower must run."""
        return None if self.layer is None else self.layer + 1

    @classmethod
    def parse(cls, name: str) -> "Site":
        """The site a joint name means.

        Raises:
            InputError: the name does not start with `vision.` or `text.`.
        """
        side, _, hook = name.partition(".")
        if side not in SIDES or not hook:
            raise InputError(
                expected="a site such as 'vision.blocks.9.hook_resid_post' or 'text.hook_embedding'",
                found=repr(name),
                fix="put the tower, 'vision.' or 'text.', before the hook",
            )
        return cls(side, hook)


def sites_of(hook: str, modalities: Literal["both", "image", "text"] = "both") -> tuple[Site, ...]:
    """The sites a user's `hook` means: a joint name is one site, a bare hook is that hook on each tower asked for."""
    if hook.partition(".")[0] in SIDES:
        return (Site.parse(hook),)
    if modalities == "both":
        return tuple(Site(side, hook) for side in SIDES)
    return (Site(SIDE_OF[modalities], hook),)
