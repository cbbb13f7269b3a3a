"""Open the dictionary given with `--sae`, and take the hook and the token choice from it."""

from dataclasses import fields, replace

from cliplens.errors import InputError
from cliplens.sae import Dictionary, located, open_dictionary
from cliplens.settings import Settings
from cliplens.sites import SIDE_OF, Site

_DEFAULTS = {f.name: f.default for f in fields(Settings)}
_SIGNED = ("abstopk",)
_TOKENS = {"special": "cls"}
"""Value of --token for each name of a token choice in SAELens' runner configs."""


def open_given(settings: Settings) -> tuple[Dictionary, Settings]:
    """Open the dictionary of `--sae`; return it, and the settings with its hook and token if these were not set.

    Raises:
        InputError: the dictionary cannot be opened, or neither it nor the options name the tower of its hook.
    """
    assert settings.sae is not None
    dictionary = open_dictionary(located(settings.sae), settings.layout)
    if dictionary.architecture in _SIGNED:
        raise InputError(
            expected="a dictionary whose latents fire with positive codes, as every score counts them",
            found=f"{dictionary.architecture}, whose codes are negative too",
            fix="score a dictionary of another architecture; steering and splicing take this one",
        )
    return dictionary, settings if settings.embeddings else _like_dictionary(settings, dictionary)


def _like_dictionary(settings: Settings, dictionary: Dictionary) -> Settings:
    made_on = dictionary.provenance
    if made_on is None:
        return _like_foreign(settings, dictionary)
    sites = [Site.parse(name) for name in made_on.sites]
    token = made_on.token if settings.token == _DEFAULTS["token"] else settings.token
    settings = replace(settings, token=_TOKENS.get(token, token))
    hooks = {site.hook for site in sites}
    if settings.hook != _DEFAULTS["hook"] or len(hooks) != 1:
        return settings
    (hook,) = hooks
    if len(sites) == 1 and settings.tower in ("both", sites[0].side):
        return replace(settings, hook=str(sites[0]))
    return replace(settings, hook=hook)


def _like_foreign(settings: Settings, dictionary: Dictionary) -> Settings:
    """Take the hook name of a dictionary of another project, which does not name its tower."""
    hook = dictionary.sae.cfg.metadata.hook_name
    if not hook or settings.hook != _DEFAULTS["hook"]:
        return settings
    if settings.tower == "both":
        raise InputError(
            expected=f"the tower of the hook {hook} on which {settings.sae} was trained",
            found="neither --hook nor --tower",
            fix=f"pass --hook {SIDE_OF['image']}.{hook} or --hook {SIDE_OF['text']}.{hook}, and --token patches, cls,"
            " eot, mean or all, as in its training",
        )
    return replace(settings, hook=f"{settings.tower}.{hook}")
