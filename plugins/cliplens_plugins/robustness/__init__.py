"""Attacks on pictures: PGD on pixels by class of latents, words on pictures, detectors, clean-up, adaptive attacks."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.robustness.checks import masked_gradient_checks as masked_gradient_checks
    from cliplens_plugins.robustness.defences import Alarm as Alarm
    from cliplens_plugins.robustness.defences import CleanUp as CleanUp
    from cliplens_plugins.robustness.defences import clean_up as clean_up
    from cliplens_plugins.robustness.defences import past_detector as past_detector
    from cliplens_plugins.robustness.detectors import LatentDetector as LatentDetector
    from cliplens_plugins.robustness.detectors import Trace as Trace
    from cliplens_plugins.robustness.detectors import detected as detected
    from cliplens_plugins.robustness.detectors import detectors as detectors
    from cliplens_plugins.robustness.detectors import thresholds as thresholds
    from cliplens_plugins.robustness.detectors import trace as trace
    from cliplens_plugins.robustness.eye import Eye as Eye
    from cliplens_plugins.robustness.eye import PixelClassifier as PixelClassifier
    from cliplens_plugins.robustness.eye import Reader as Reader
    from cliplens_plugins.robustness.eye import View as View
    from cliplens_plugins.robustness.losses import caption as caption
    from cliplens_plugins.robustness.losses import class_targeted as class_targeted
    from cliplens_plugins.robustness.losses import class_untargeted as class_untargeted
    from cliplens_plugins.robustness.losses import feature as feature
    from cliplens_plugins.robustness.losses import margins as margins
    from cliplens_plugins.robustness.losses import zero_shot as zero_shot
    from cliplens_plugins.robustness.pgd import Attacked as Attacked
    from cliplens_plugins.robustness.pgd import Budget as Budget
    from cliplens_plugins.robustness.pgd import equal_noise as equal_noise
    from cliplens_plugins.robustness.pgd import pgd as pgd
    from cliplens_plugins.robustness.pgd import random_squares as random_squares
    from cliplens_plugins.robustness.pixels import PixelScale as PixelScale
    from cliplens_plugins.robustness.pixels import pixel_scale as pixel_scale
    from cliplens_plugins.robustness.shares import energies as energies
    from cliplens_plugins.robustness.shares import relative_shares as relative_shares
    from cliplens_plugins.robustness.typographic import Typographic as Typographic
    from cliplens_plugins.robustness.typographic import typographic as typographic
    from cliplens_plugins.robustness.typographic import write_word as write_word

export_lazily(__name__)
