"""Sites: a tower and a hook name, such as `vision.blocks.9.hook_resid_post`.

The names of sides and modalities are defined here and nowhere else.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cliplens.errors import InputError

Side = Literal["vision", "text"]
Modality = Literal["image", "text"]
Modalities = Literal["both", "image", "text"]
SIDES: tuple[Side, ...] = ("vision", "text")
MODALITIES: tuple[Modality, ...] = ("image", "text")
MODALITY_OF: dict[Side, Modality] = {"vision": "image", "text": "text"}
SIDE_OF: dict[Modality, Side] = {"image": "vision", "text": "text"}
_BLOCK = re.compile(r"^blocks\.(\d+)\.")


@dataclass(frozen=True, order=True)
class Site:
    """One hook of one tower.

    `str(site)` is its name at the joint model; `site.hook` is its name at the tower.

    >>> site = Site.parse("vision.blocks.9.hook_resid_post")
    >>> site.side, site.modality, site.layer
    ('vision', 'image', 9)
    """

    side: Side
    hook: str

    def __str__(self) -> str:
        return f"{self.side}.{self.hook}"

    @property
    def modality(self) -> Modality:
        """The modality the tower reads: "image" for the vision tower, "text" for the text tower."""
        return MODALITY_OF[self.side]

    @property
    def layer(self) -> int | None:
        """Index of the block that contains the hook; None for hooks outside the blocks."""
        found = _BLOCK.match(self.hook)
        return int(found.group(1)) if found else None

    @property
    def stop_at_layer(self) -> int | None:
        """First block that need not run to read this site; None when the whole tower must run."""
        return None if self.layer is None else self.layer + 1

    @classmethod
    def parse(cls, name: str) -> "Site":
        """Return the site with a joint name.

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


def as_site(site: Site | str) -> Site:
    """Return a site given as a `Site` or as its joint name.

    >>> as_site("text.hook_embedding") == Site("text", "hook_embedding")
    True

    Raises:
        InputError: the name does not start with `vision.` or `text.`, or it is neither a site nor a string.
    """
    if isinstance(site, Site):
        return site
    if isinstance(site, str):
        return Site.parse(site)
    raise InputError(
        expected="a Site or its name",
        found=f"{site!r} of type {type(site).__name__}",
        fix="pass a string such as 'vision.hook_embedding'",
    )


def as_sites(sites: "Site | str | Iterable[Site | str]") -> tuple[Site, ...]:
    """Return one site, or several, as a tuple of sites without duplicates, in the given order.

    >>> [str(site) for site in as_sites(["text.hook_embedding", "vision.hook_embedding"])]
    ['text.hook_embedding', 'vision.hook_embedding']
    """
    several = [sites] if isinstance(sites, Site | str) else sites
    return tuple(dict.fromkeys(as_site(site) for site in several))


def sites_of(hook: Site | str, modalities: Modalities = "both") -> tuple[Site, ...]:
    """Return the sites a hook name refers to.

    A site, or its joint name, is that one site. A bare hook name is the hook of that name on each tower of
    `modalities`.

    >>> [str(site) for site in sites_of("hook_embedding")]
    ['vision.hook_embedding', 'text.hook_embedding']
    """
    if isinstance(hook, Site) or hook.partition(".")[0] in SIDES:
        return (as_site(hook),)
    if modalities == "both":
        return tuple(Site(side, hook) for side in SIDES)
    return (Site(SIDE_OF[modalities], hook),)
