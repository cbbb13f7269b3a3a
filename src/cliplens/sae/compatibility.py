"""Check that a dictionary and a model's sites fit together."""

from collections.abc import Mapping

from cliplens.errors import MismatchError
from cliplens.records import ModelIdentity, Provenance
from cliplens.sites import Site


def check_compatible(
    provenance: Provenance | None,
    d_in: int,
    model: ModelIdentity,
    widths: Mapping[Site, int],
    token: str | None = None,
) -> None:
    """Check the width of sites and, if the origin of the dictionary is known, model, hook and token choice.

    Args:
        provenance: origin of the dictionary; None checks widths only.
        d_in: width of the activations the dictionary reads.
        model: identity of the model.
        widths: width of each site.
        token: the token choice; None skips its check.

    Raises:
        MismatchError: they differ; the message names both values.
    """
    for site, width in widths.items():
        if width != d_in:
            raise MismatchError(
                expected=f"a site of width {d_in}, the dictionary's d_in",
                found=f"{site} of width {width}",
                fix="read the hook the dictionary was trained on (--hook, --token), or train a dictionary on this hook",
            )
    if provenance is None:
        return
    _check_model(provenance.model, model, widths)
    for site in widths:
        if str(site) not in provenance.sites:
            raise _mismatch("the hook", " and ".join(provenance.sites), str(site))
    if token is not None and token != provenance.token:
        raise _mismatch("the token choice", repr(provenance.token), repr(token))


def _check_model(made_on: ModelIdentity, given: ModelIdentity, widths: Mapping[Site, int]) -> None:
    sides = {site.side for site in widths}
    if made_on.weights_sha256 != given.weights_sha256:
        raise _mismatch("the model", _describe(made_on), _describe(given))
    if "vision" in sides and made_on.preprocess_sha256 != given.preprocess_sha256:
        raise _mismatch("the preprocess", made_on.preprocess, given.preprocess)
    if "text" in sides and made_on.tokenizer_sha256 != given.tokenizer_sha256:
        raise _mismatch("the tokenizer", made_on.tokenizer_sha256[:12], given.tokenizer_sha256[:12])


def _describe(model: ModelIdentity) -> str:
    tag = f", {model.pretrained}" if model.pretrained else ""
    return f"{model.name}{tag} (weights {model.weights_sha256[:12]})"


def _mismatch(part: str, made_on: str, given: str) -> MismatchError:
    return MismatchError(
        expected=f"{part} the dictionary was trained on, {made_on}",
        found=given,
        fix="use the dictionary with what it was trained on, or train a dictionary here",
    )
