"""The study of one run: attacks, classes, detectors, defences, words and checks, as a record."""

from collections.abc import Sequence
from typing import Any

from cliplens.run import OpenedRun
from cliplens.studies import Study
from cliplens_plugins.robustness import losses, words
from cliplens_plugins.robustness.checks import foolbox_pgd, masked_gradient_checks
from cliplens_plugins.robustness.elsewhere import elsewhere, other_subject
from cliplens_plugins.robustness.eye import Eye, PixelClassifier
from cliplens_plugins.robustness.findings import findings
from cliplens_plugins.robustness.guard import adaptive, clean_ups, detection, fitted, refused, spare_views
from cliplens_plugins.robustness.lab import OWN, UNTRAINED, AttackOptions, Lab, open_lab
from cliplens_plugins.robustness.measure import SHOWN, Made, made, right_of_other, said, seen
from cliplens_plugins.robustness.pgd import pgd
from cliplens_plugins.robustness.strips import attack_strip, strip
from cliplens_plugins.robustness.tables import Row, by_eps, crossings, outcomes, shares

NOTES = (
    "Accuracies under attack are upper bounds: a stronger attack may lower them. Ten steps are enough to compare, not "
    "for a claim of robustness; --strong takes 100 steps and five starts.",
    "A share of 1 says that a class moves as much as its clean energy suggests. Small classes have wide intervals. "
    "`random as` is the median of random sets of equal size and similar firing rates, with the range of 95 % of them. "
    "The interval of `beyond random` covers the pictures and the draw of the set.",
    "Random latents that are attacked, that detect, or that are cleaned up are one draw each. Their intervals do not "
    "cover the draw, so another one may come out otherwise.",
    "Attacks on latents change pre-activations, because top-k passes no gradient to a silent latent.",
    "Detectors were fitted with one attack and one eps; the row says which. Found only counts where the false alarms "
    "beside it came out near the rate.",
    "Intervals are over pictures (95 %). They do not cover another dictionary or another model.",
)
T_EPS = "Zero-shot accuracy under attack, by eps in levels of 255"
T_OUTCOMES = "What the model says under attack"
T_SHARES = "Which class moves: share of the change divided by the share of the clean energy"
T_CROSS = "Moved until it says another caption, by class of latents"
T_CHECKS = "Signs of a masked gradient"
T_DETECT = "Detectors on pictures they were not fitted on"
T_ELSEWHERE = "Detectors on pictures of another data set"
T_CLEAN = "Clean-up, with and without the error term, unaware of it and through it"
T_ADAPT = "Attacks that avoid the detector"
T_WORDS = "Words written on the picture"
T_WORD_DETECT = "Detectors of words on the picture"
T_WORD_CLEAN = "Clean-up of words on the picture"


def study_of_run(run: OpenedRun, asked: AttackOptions) -> Study:
    """Return the record of the study of a run.

    Raises:
        InputError: the run has one modality or no scores, the labels are unknown, the model has no preprocess, or
            too few pictures of the other data set can be read.
    """
    other = None if asked.elsewhere is None else other_subject(run.clip, asked.elsewhere)
    lab = open_lab(run, asked)
    clean = seen(lab, lab.clean.unit)
    found = list(made(lab))
    clean_other = right_of_other(lab, lab.subject.pixels)
    tables: dict[str, Sequence[Row]] = {T_EPS: by_eps(clean, found)}
    tables[T_CHECKS] = checks(lab)
    tables[T_CROSS] = crossings(found, asked.seed)
    tables[T_SHARES] = shares(lab, found)
    tables[T_OUTCOMES] = outcomes(lab, clean, clean_other, found)
    kept: dict[str, Any] = {}
    if (spare := spare_views(lab)) is not None:
        guards = [fitted(lab, book, spare) for book in lab.books if book.name in (OWN, UNTRAINED)]
        guard = guards[0]
        tables[T_DETECT] = [row for one in guards for row in detection(lab, one, found)]
        if other is not None:
            tables[T_ELSEWHERE] = elsewhere(lab, guards, other(len(lab.subject)), str(asked.elsewhere))
        tables[T_CLEAN], tables[T_ADAPT] = clean_ups(lab, guard), adaptive(lab, guard)
        kept = {"refused": refused(lab, guard), "detector": guard.latents.latents.tolist()}
    pictures = _pictures(lab, found)
    notes = [*lab.notes, *NOTES]
    if words.writable(lab.subject):
        tables[T_WORDS] = words.outcomes(words.read_words(lab), asked.seed)
        tables[T_WORD_DETECT], tables[T_WORD_CLEAN] = words.defended(lab)
        shown = words.written(lab, lab.subject)[:SHOWN]
        pictures["A wrong word on the picture"] = strip([lab.subject.pictures[:SHOWN], shown])
    else:
        notes.append("No words were written on pictures: the classes are captions. Give --labels.")
    record = Study(
        name="attack",
        title=f"Attacks on {run.clip.identity.name}: {lab.subject.name}",
        tables={title: rows for title, rows in tables.items() if rows},
        notes=notes,
        settings={**vars(asked), "eps": lab.eps, "attacks": lab.attacks, "images": len(lab.subject)},
        latents={"Latents of the detector, strongest first": kept["detector"]} if kept else {},
        data=kept,
        pictures=pictures,
    )
    return _with_findings(record, lab)


def checks(lab: Lab) -> list[Row]:
    """Return the checks for masked gradients, of the margin attack at the reference eps."""
    subject, budget = lab.subject, lab.asked.budget(lab.reference)
    how: dict[str, Any] = {"seed": lab.asked.seed, "batch": lab.batch}
    aim = losses.zero_shot(lab.eye, subject.prototypes, subject.labels)
    transferred = None
    if lab.other is not None:
        theirs = losses.zero_shot(lab.other.eye, lab.other.prototypes, subject.labels)
        pixels = pgd(theirs, subject.pixels, budget, **how).pixels
        view = lab.eye.views(pixels, batch=lab.batch)
        margin = losses.margins(view.unit, subject.prototypes, subject.labels)
        transferred = float((margin < 0).double().mean())
    scale, _ = lab.run.clip.logit_scale_and_bias()
    model = PixelClassifier(Eye(lab.run.clip), subject.prototypes, scale=float(scale.detach()))
    second = foolbox_pgd(model, subject.labels, seed=lab.asked.seed)
    return masked_gradient_checks(
        aim, subject.pixels, budget, transferred=transferred, foolbox=second, thorough=not lab.large, **how
    )


def _pictures(lab: Lab, found: Sequence[Made]) -> dict[str, str]:
    """Return the strips for the report: the margin attack at the reference eps, the caption attack at the largest."""
    wanted = (("zero-shot margin", lab.reference), ("to the caption", max(lab.eps)))
    clean = lab.subject.pixels[:SHOWN]
    before = ", ".join(said(lab, lab.clean.unit[:SHOWN]))
    return {
        f"{m.kind}, eps {m.eps:g}: clean, attacked, difference (grey is none, black and white are the full eps). "
        f"The model says {before}; attacked {', '.join(m.said)}": attack_strip(clean, m.shown.to(clean), m.eps / 255)
        for m in found
        if (m.kind, m.eps) in wanted
    }


def _with_findings(record: Study, lab: Lab) -> Study:
    return Study(**{**vars(record), "findings": findings(record.tables, lab.reference, max(lab.eps))})
