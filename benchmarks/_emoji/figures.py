"""Measure one model of real drawings: every figure with its chance level, by table and row."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from _emoji.erased import erased
from _emoji.recovery import recovered, recovered_of_two
from cliplens.pairs.emoji import ARTISTS, LANGUAGES
from cliplens_hooks.models.emoji import TRAINED_LANGUAGES
from cliplens_hooks.training.emoji_figures import GENDERS, TONES, Judged

Rows = dict[str, tuple[float | None, float | None]]
"""By title: the chance level and the figure."""
Measured = dict[str, Rows]


def measured(model: Judged, table: str) -> Rows:
    """Return the rows of a table."""
    return TABLES[table](model)


def what_it_does(model: Judged) -> Rows:
    """Return retrieval on Noto, choices among cells of three artists, and probes."""
    known, new = (model.plain("noto", unseen=kind) for kind in (False, True))
    found: Rows = {}
    for k in (1, 10):
        for about, places in (("trained", known), ("unseen", new)):
            title = f"R@{k} of {len(places)} {about} concepts"
            found[title] = k / len(places), model.retrieval(places, "en", k)
    title = f"R@10 of {len(new)} unseen concepts, by name and keywords"
    found[title] = 10 / len(new), model.retrieval(new, "en", 10, keywords=True)
    professions = sorted({d.profession for d in model.gallery.drawings} - {"none"})
    tasks = {"gender": GENDERS, "skin tone": TONES, "profession": professions}
    for unseen in (True, False):
        for factor, values in tasks.items():
            gendered = factor == "gender"
            places = np.concatenate([model.cells(a, unseen=unseen, gendered=gendered) for a in ARTISTS])
            title = f"{factor}, {len(places)} drawings of {'unseen' if unseen else 'trained'} cells"
            right = model.swap(places, factor.replace(" ", "_"), values)
            found[title] = 1 / len(values), float(right.mean())
    return found | probes(model)


def probes(model: Judged) -> Rows:
    """Return how well artist and language are read, and their shares of the variance."""
    plain = model.gallery.where(lambda d: d.plain)
    artists = np.array([model.gallery.drawings[n].artist for n in plain])
    names = model.plain("noto", unseen=None)[::3]
    said = torch.cat([model.text(model.names(names, language)) for language in TRAINED_LANGUAGES])
    languages = np.repeat(np.arange(len(TRAINED_LANGUAGES)), len(names))
    return {
        "artist, linear probe on drawings": (1 / len(ARTISTS), model.artist_probe()),
        "language, linear probe on names": (1 / len(TRAINED_LANGUAGES), model.language_probe(TRAINED_LANGUAGES)),
        "variance between artists, drawings": (None, model.variance_share(model.image[plain], artists)),
        "variance between languages, names": (None, model.variance_share(said, languages)),
    }


def by_artist(model: Judged) -> Rows:
    """Return retrieval per artist."""
    found: Rows = {}
    for artist in ARTISTS:
        for about, unseen in (("trained", False), ("unseen", True)):
            places = model.plain(artist, unseen=unseen)
            title = f"{artist}, {len(places)} {about} concepts"
            found[title] = 10 / len(places), model.retrieval(places, "en", 10)
    return found


def neutral_drawings(model: Judged) -> Rows:
    """Return how often a drawing without a named gender is nearer to the woman's name, over professions and tones."""
    found: Rows = {}
    for artist in ARTISTS:
        places = [
            n
            for n, d in enumerate(model.gallery.drawings)
            if d.artist == artist and d.profession != "none" and d.gender == "neutral"
        ]
        nearer = []
        for place in places:
            drawing = model.gallery.drawings[place]
            options = [model.cell(replace(drawing, gender=gender)).name for gender in GENDERS]
            woman, man = model.text(options) @ model.image[place]
            nearer.append(bool(woman > man))
        found[f"{artist}, {len(places)} neutral drawings"] = None, float(np.mean(nearer))
    return found


def by_language(model: Judged) -> Rows:
    """Return retrieval and gender per language on Noto; six languages were never trained on."""
    found: Rows = {}
    trained, unseen = (model.plain("noto", unseen=kind) for kind in (False, True))
    cells = model.cells("noto", unseen=True, gendered=True)
    for language in (*TRAINED_LANGUAGES, *(name for name in LANGUAGES if name not in TRAINED_LANGUAGES)):
        title = language if language in TRAINED_LANGUAGES else f"{language}, never trained on"
        known = np.array([place for place in trained if model.has(int(place), language)])
        for about, places in (("trained", known), ("unseen", unseen)):
            found[f"{title}|{about} concepts, R@10"] = 10 / len(places), model.retrieval(places, language, 10)
        right = model.swap(cells, "gender", GENDERS, language)
        found[f"{title}|gender, unseen cells"] = 1 / len(GENDERS), float(right.mean())
    return found


TABLES: dict[str, Callable[[Judged], Rows]] = {
    "what": what_it_does,
    "artists": by_artist,
    "neutral": neutral_drawings,
    "erased": erased,
    "recovery": recovered,
    "two languages": recovered_of_two,
    "languages": by_language,
}
