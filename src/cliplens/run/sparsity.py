"""Warn when another number of latents fires than was asked for, with the cause and what to do about it."""

from dataclasses import replace

from cliplens.records import WARNING
from cliplens.run.dictionary import training_config
from cliplens.sae import Dictionary, calibration_of, sparsity_fields
from cliplens.settings import Settings

FACTOR = 1.5
"""A dictionary fires too often, or too rarely, when L0 differs from k by more than this factor."""


def sparsity_warning(l0: float, dictionary: Dictionary, settings: Settings) -> str | None:
    """Return a warning where L0 is more than 1.5 times k, or less than k / 1.5; None where it is not, or k is unknown.

    Args:
        l0: latents that fire per scored sample, at least 0.
        dictionary: the dictionary that was scored.
        settings: settings of the run.
    """
    wanted = _wanted(dictionary, settings)
    if wanted is None or wanted / FACTOR <= l0 <= wanted * FACTOR:
        return None
    ratio = f"{l0 / wanted:.2g} times" if l0 > wanted else f"only {l0 / wanted:.0%} of"
    cause = _cause(l0 > wanted, dictionary, settings)
    return f"{WARNING}{l0:.3g} latents fire per scored sample, {ratio} the {wanted:.3g} asked for. {cause}"


def _wanted(dictionary: Dictionary, settings: Settings) -> float | None:
    """Return the number of firing latents that was asked for, or that a given dictionary had when it was trained."""
    if settings.sae is None:
        field = sparsity_fields(settings.architecture)[0]
        same = replace(settings, d_sae=settings.d_sae or dictionary.d_sae)
        return None if field is None else float(getattr(training_config(same, dictionary.d_in), field))
    measured = calibration_of(dictionary.sae.cfg.metadata)
    k = getattr(dictionary.sae.cfg, "k", None) if measured is None else measured.l0
    return None if k is None else float(k)


def _cause(often: bool, dictionary: Dictionary, settings: Settings) -> str:
    if settings.sae is not None:
        return (
            "So these pairs differ from those it was trained on, or the model does. Check --model, --hook and --token; "
            "or train a dictionary on such pairs."
        )
    if settings.architecture == "jumprelu":
        now = "raise" if often else "lower"
        return f"The penalty did not bring it to its target. Train longer (--samples), or {now} --sparsity."
    if "batchtopk" not in settings.architecture:
        return "On most samples fewer latents than k have a positive value. Use more pairs, or a smaller --k."
    if calibration_of(dictionary.sae.cfg.metadata) is None:
        return (
            "Its threshold is the running mean of an earlier version of cliplens, which lags behind a short training. "
            "Train it again in another --out."
        )
    return (
        "On the rows it was trained on, the number is right: the held-out pairs differ from those, because there are "
        "few or because it fits single pairs. Use more pairs."
    )
