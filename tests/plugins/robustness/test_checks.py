"""Checks for masked gradients, attacks that know the defence, and findings, on planted models and tables."""

import pytest
import torch
from torch import Tensor

from cliplens.hooked import HookedCLIP
from cliplens_plugins.robustness import (
    Alarm,
    Budget,
    Eye,
    LatentDetector,
    clean_up,
    masked_gradient_checks,
    past_detector,
    pgd,
    trace,
    zero_shot,
)
from cliplens_plugins.robustness.findings import AGAINST_ONE, NOTHING_TO_LOSE, findings
from cliplens_plugins.robustness.of_run import (
    T_ADAPT,
    T_CHECKS,
    T_CLEAN,
    T_CROSS,
    T_DETECT,
    T_EPS,
    T_OUTCOMES,
    T_SHARES,
    T_WORDS,
)
from support.tiny_dictionaries import tiny_dictionary

FINAL = ("vision.hook_embedding", "text.hook_embedding")


def pixels(n: int = 12, seed: int = 0) -> Tensor:
    return 0.3 + 0.4 * torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def margin(masked: bool):  # type: ignore[no-untyped-def]
    """A linear margin below 0; masked, the gradient is that of pixels rounded to whole levels, and so 0."""
    weight = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))

    def objective(given: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        seen = given.detach() if masked else given
        value = ((seen - pixels()[rows]) * weight).sum((1, 2, 3)) - 1.0
        return value + 0.0 * given.sum(), value

    return objective


def test_every_check_holds_on_a_model_with_an_honest_gradient() -> None:
    rows = masked_gradient_checks(margin(False), pixels(), Budget(4 / 255), transferred=0.5)
    assert len(rows) == 7
    assert [row["check"] for row in rows if not row["holds"]] == []
    assert rows[0]["accuracy"] == 0.0


def test_a_masked_gradient_is_noticed() -> None:
    rows = masked_gradient_checks(margin(True), pixels(), Budget(4 / 255))
    failed = {row["check"] for row in rows if not row["holds"]}
    assert "noise of equal norm is far weaker" in failed
    assert "random squares (no gradient) are weaker" in failed


def test_large_models_skip_the_costly_checks_and_another_library_is_heard() -> None:
    few = masked_gradient_checks(margin(False), pixels(), Budget(4 / 255), thorough=False)
    assert len(few) == 3
    stronger = masked_gradient_checks(
        margin(True), pixels(), Budget(4 / 255), thorough=False, foolbox=lambda clean, budget: clean * 0
    )
    assert stronger[-1]["check"].startswith("foolbox")


@pytest.fixture(scope="module")
def eye(clip: HookedCLIP) -> Eye:
    return Eye(clip, tiny_dictionary(32, sites=FINAL, architecture="topk"))


def test_an_attack_that_knows_the_detector_scores_lower(eye: Eye) -> None:
    clean = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    prototypes = torch.nn.functional.normalize(torch.randn(4, 32, generator=torch.Generator().manual_seed(1)), dim=1)
    view = eye.views(clean)
    labels = (view.unit.float() @ prototypes.T).argmax(1)
    assert eye.reader is not None
    here = trace(view, eye.reader)
    often = here.codes.mean(0).argsort(descending=True)[:6]
    detector = LatentDetector(often, torch.zeros(48))
    alarm = Alarm.of(detector, float(detector(here).min()), here)
    budget = Budget(16 / 255, 8, 4 / 255)
    found = [pgd(past_detector(eye, prototypes, labels, alarm, c), clean, budget).pixels for c in (0.0, 10.0)]
    assert torch.equal(found[0], pgd(zero_shot(eye, prototypes, labels), clean, budget).pixels)
    scores = [detector(trace(eye.views(p), eye.reader)) for p in found]
    assert scores[1].mean() < scores[0].mean()


def test_an_attack_through_a_clean_up_is_stronger_than_one_that_ignores_it(eye: Eye) -> None:
    clean = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    prototypes = torch.nn.functional.normalize(torch.randn(4, 32, generator=torch.Generator().manual_seed(1)), dim=1)
    view = eye.views(clean)
    assert view.acts is not None
    assert eye.reader is not None
    change = clean_up(eye.reader, torch.tensor([1, 2, 3]), view.acts, keep_error=False)
    labels = (eye.views(clean, change).unit.float() @ prototypes.T).argmax(1)
    aim = zero_shot(eye, prototypes, labels, change=change)
    budget = Budget(8 / 255, 10, 2 / 255)
    unaware = pgd(zero_shot(eye, prototypes, labels), clean, budget).pixels
    with torch.no_grad():
        before = aim(unaware, torch.arange(6))[1].mean()
    assert pgd(aim, clean, budget).value.mean() > before


def test_findings_say_what_the_tables_hold_and_failed_checks_first() -> None:
    cell = "0.500 (0.400 to 0.600)"
    shares = {
        **{"ImgD": cell, "TextD": cell, "CrossD": cell, "ImgD beyond random": "-0.3 (-0.400 to -0.100)"},
        **{"TextD beyond random": "0.9 (-0.100 to 4.000)", "CrossD beyond random": "0.3 (0.100 to 0.400)"},
    }
    outcome = {"latents": "-", "zero-shot, equal noise": cell, "zero-shot, other model": cell}
    tables = {
        T_EPS: [{"attack": "none", "latents": "-", "eps 4": cell}],
        T_OUTCOMES: [
            {"attack": "none", "eps": 0.0, "zero-shot": "0.900 (0.8 to 1.0)", **outcome},
            {"attack": "zero-shot margin", "eps": 4.0, "zero-shot": "0.100 (0.0 to 0.2)", **outcome},
        ],
        T_SHARES: [{"dictionary": "own", "attack": "zero-shot margin", "eps": 4.0, **shares}],
        T_CROSS: [
            {"goal": "picture", "latents": name, "eps": 4.0, "nearer to the target": cell, AGAINST_ONE: difference}
            for name, difference in (("ImgD", "-0.2 (-0.3 to -0.1)"), ("CrossD", "0.2 (0.1 to 0.3)"))
        ],
        T_CHECKS: [{"check": "large eps", "accuracy": 0.3, "compared with": 0.0, "holds": False}],
        T_DETECT: [
            {"fitted on it": False, "detector": name, "AUROC": value}
            for name, value in (("latents", "0.600 (0.5 to 0.7)"), ("linear probe", "0.800 (0.7 to 0.9)"))
        ],
        T_CLEAN: [
            {"clean-up": name, "clean": cell, "attacked, unaware of it": cell, "right under all of them": cell}
            for name in ("none", "reconstruction alone")
        ],
        T_ADAPT: [
            {"misclassified, not found by latents": "0.300 (0.2 to 0.4)"},
            {"misclassified, not found by latents": "0.700 (0.6 to 0.8)"},
        ],
        T_WORDS: [
            {
                "on the picture": case,
                "says the object": cell,
                "says the wrong word": cell,
                "says the word, beyond scrambled letters": "0.000 (-0.100 to 0.100)",
            }
            for case in ("clean", "wrong word", "scrambled word", "empty box", "own word")
        ],
    }
    says = findings(tables, 4.0, 4.0)
    assert says[0].startswith("1 of 1 checks for masked gradients fail")
    told = " ".join(says)
    assert "falls from 0.900 to 0.100 at 4" in told
    assert "gets 0.700 of the pictures misclassified and not found, one that ignores it 0.300" in told
    assert "Latents do no better than a linear probe" in told
    assert "More than one draw of as many random latents: CrossD; fewer: ImgD. Another draw" in told
    assert f"own: ImgD {cell}, TextD {cell}, CrossD {cell} (more than random sets as large: CrossD; less: ImgD)" in told
    assert "does not read words" in told
    assert findings({T_OUTCOMES: tables[T_OUTCOMES][:1]}, 4.0, 4.0) == []
    blind = [{**row, "zero-shot": "0.000 (0.000 to 0.390)"} for row in tables[T_OUTCOMES]]
    says = findings({**tables, T_OUTCOMES: blind}, 4.0, 4.0)
    assert says[0] == NOTHING_TO_LOSE
    assert not any("masked gradients fail" in one or "falls from" in one for one in says)
