"""Make the study of one run: kinds of words, languages, and labels of a fixed vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from cliplens.errors import CliplensError, InputError
from cliplens.keys import first_id
from cliplens.pairs import tokenised
from cliplens.records import PairedActs
from cliplens.run import OpenedRun, labels_of
from cliplens.sae import Dictionary
from cliplens.sites import MODALITIES
from cliplens.studies import ScoredClasses, Study, classes_of_table, sample_codes, twin_of
from cliplens_plugins.words.kinds import KindShare, kind_shares, split_by_picture
from cliplens_plugins.words.languages import NameIn, bound_latents, names_in, same_thing
from cliplens_plugins.words.options import WordsOptions
from cliplens_plugins.words.presence import LatentWords, Words, latent_words, words_of
from cliplens_plugins.words.record import Found, Kinds, Languages, record
from cliplens_plugins.words.standard import Label, Vocabulary
from cliplens_plugins.words.taggers import INSTALL, Tagger, check_language, open_tagger
from cliplens_plugins.words.tokens import coverage

EMBEDDED = 20_000
"""Entries of a vocabulary that are embedded at most; larger ones, such as WordNet, match by words alone."""
EMOJI = "emoji:"


Codes = tuple[Float[np.ndarray, "row latent"], Float[np.ndarray, "row latent"]]


@dataclass(frozen=True, eq=False)
class Read:
    """Scored pairs with the codes of a dictionary."""

    captions: tuple[str, ...]
    pictures: tuple[str, ...]
    languages: tuple[str, ...]
    """Language of each caption; the tagged one where no column says otherwise."""
    codes: Codes
    """Codes of images and of captions."""
    chosen_on: Bool[np.ndarray, " row"]
    """Rows of half of the pictures, which choose the words of latents."""
    acts: PairedActs | None
    """Stored activations of the pairs; None where they are gone, or have many rows per pair."""


def study_of_run(run: OpenedRun, asked: WordsOptions) -> tuple[Study, list[Label]]:
    """Return the record of the study of a run, and the label of each latent, if a vocabulary is given.

    Where names are mapped to a vocabulary or asked for in a language, and no tagger is installed, kinds of words are
    left out, with a note.

    Raises:
        InputError: the run has one modality or no scores, the tagger is missing, no caption is in the tagged language,
            or the vocabulary cannot be read.
    """
    scored = classes_of_table(run.table, asked.rule)
    tagger = _tagger(asked)
    vocabulary = None if asked.vocabulary is None else Vocabulary.read(asked.vocabulary)
    if tagger is not None:
        check_language(tagger, asked.tagged, None)
    read = read_pairs_of(run, asked)
    kinds, notes = None, [f"Kinds of words are left out, because no tagger is installed: {INSTALL}."]
    if tagger is not None:
        check_language(tagger, asked.tagged, read.languages)
        kinds, notes = _kinds(run, asked, read, tagger, scored)
    labels = [] if vocabulary is None else _labels(run, vocabulary)
    if vocabulary is not None and vocabulary.left_out:
        notes = [vocabulary.left_out, *notes]
    return record(Found(kinds, scored, _languages(run, asked, read), labels), asked, notes), labels


def _tagger(asked: WordsOptions) -> Tagger | None:
    """Return the tagger; None where it is not installed and something else was asked for."""
    try:
        return open_tagger(asked.tagger)
    except InputError:
        if asked.tagger is not None or (asked.vocabulary is None and not asked.names_in):
            raise
        return None


def _kinds(
    run: OpenedRun, asked: WordsOptions, read: Read, tagger: Tagger, scored: ScoredClasses
) -> tuple[Kinds, list[str]]:
    rows = np.array([language == asked.tagged for language in read.languages])
    words = words_of([c for c, of in zip(read.captions, rows, strict=True) if of], tagger)
    mine = latent_words(read.codes[0][rows], read.codes[1][rows], words.present, read.chosen_on[rows])
    shares = kind_shares(mine, words.kinds, scored, draws=asked.draws, seed=asked.seed)
    untrained, notes = _untrained(run, asked, read, words, rows)
    return Kinds(tagger.name, words, mine, shares, untrained), notes


def read_pairs_of(run: OpenedRun, asked: WordsOptions) -> Read:
    """Return scored pairs with their codes and the language of each caption.

    Stored activations are used where there are any, so that runs on embeddings without a model can be studied.

    Raises:
        InputError: the run lacks images or captions.
    """
    if not (run.pairs.has_images and run.pairs.has_captions) and not run.asked.embeddings:
        raise InputError(
            expected="a run over images and captions", found=str(run.asked.pairs), fix="use a run of both towers"
        )
    acts: PairedActs | None = None
    try:
        acts = run.scored_acts(asked.pairs)
    except CliplensError:
        ids, captions, codes = _by_model(run, asked.pairs)
    else:
        places = run.pairs.indices(acts.ids)
        found = [run.pairs.caption_at(places[i]) for i in acts.ids]
        known = np.array([bool(caption) for caption in found])
        acts = PairedActs(
            tuple(i for i, of in zip(acts.ids, known, strict=True) if of),
            *(None if (rows := acts.of(m)) is None else rows[torch.as_tensor(known)] for m in MODALITIES),
        )
        ids, captions, codes = acts.ids, [str(caption) for caption in found if caption], _dense(run.dictionary, acts)
    pictures = tuple(first_id(i) for i in ids)
    chosen_on = split_by_picture(pictures, asked.seed)
    return Read(tuple(captions), pictures, _languages_of(run, asked, ids), codes, chosen_on, acts)


def _by_model(run: OpenedRun, count: int) -> tuple[Sequence[str], Sequence[str], Codes]:
    sample = run.sample(count)
    assert sample.captions is not None
    assert sample.images is not None
    tokenizer: Any = run.clip.tokenizer
    inputs = (("image", sample.images.to(run.clip.dtype)), ("text", tokenised(sample.captions, tokenizer).tokens))
    image, text = (
        sample_codes(run.clip, run.dictionary, m, x).float().cpu().numpy()  # type: ignore[arg-type]
        for m, x in inputs
    )
    return sample.ids, sample.captions, (image, text)


def _dense(dictionary: Dictionary, acts: PairedActs) -> Codes:
    coded = dictionary.encode(acts)
    if coded.image is None or coded.text is None:
        raise InputError(
            expected="a run over images and captions",
            found="activations of one modality",
            fix="make a run of both towers: cliplens run --tower both",
        )
    image, text = (codes.dense().float().cpu().numpy() for codes in (coded.image, coded.text))
    return image, text


def _languages_of(run: OpenedRun, asked: WordsOptions, ids: Sequence[str]) -> tuple[str, ...]:
    column = asked.language or ("language" if str(run.asked.pairs).startswith(EMOJI) else None)
    if column is None:
        return (asked.tagged,) * len(ids)
    labels = labels_of(run.asked, column)
    return tuple(labels[i] or "unknown" for i in ids)


def _untrained(
    run: OpenedRun, asked: WordsOptions, read: Read, words: Words, rows: Bool[np.ndarray, " row"]
) -> tuple[list[KindShare], list[str]]:
    if read.acts is None:
        return [], [
            "The control with an untrained dictionary is left out: it needs the run's activations, one row per pair."
        ]
    twin, scored = twin_of(run.dictionary, read.acts, rule=asked.rule, seed=asked.seed)
    image, text = _dense(twin, read.acts)
    found: LatentWords = latent_words(image[rows], text[rows], words.present, read.chosen_on[rows])
    return kind_shares(found, words.kinds, scored, draws=asked.draws, random_sets=1, seed=asked.seed), []


def _languages(run: OpenedRun, asked: WordsOptions, read: Read) -> Languages:
    known = sorted(set(read.languages))
    missing = [language for language in asked.names_in if language not in known]
    if missing:
        raise InputError(
            expected=f"--names-in of the languages {', '.join(known)}",
            found=repr(missing[0]),
            fix="pass --language COLUMN if the languages stand in a column, or leave it out",
        )
    by_language = {x: [c for c, y in zip(read.captions, read.languages, strict=True) if x == y] for x in known}
    covered = [] if run.asked.embeddings else coverage(run.clip.tokenizer, by_language)
    codes = read.codes[1]
    fires = codes > 0
    names: dict[str, list[NameIn]] = {}
    for language in asked.names_in:
        of = np.array([x == language for x in read.languages])
        names[language] = names_in(codes[of], by_language[language], read.chosen_on[of])
    bound = bound_latents(fires, read.languages, draws=min(asked.draws, 200), seed=asked.seed)
    same = same_thing(fires, read.languages, read.pictures, asked.tagged, resamples=asked.draws, seed=asked.seed)
    return Languages(covered, bound, same, names)


def _labels(run: OpenedRun, vocabulary: Vocabulary) -> list[Label]:
    table = run.table
    if "name" not in table:
        raise InputError(
            expected="a run whose latents have names, for --vocabulary",
            found="no column `name`",
            fix="finish the run with cliplens run --resume",
        )
    names = ["" if str(name) == "unnamed" else str(name or "") for name in table["name"]]
    if run.asked.embeddings or len(vocabulary.entries) > EMBEDDED:
        return vocabulary.labels(names)
    tokenizer: Any = run.clip.tokenizer

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> Float[np.ndarray, "text d"]:
        tokens = tokenised(list(texts), tokenizer).tokens.to(run.clip.device)
        rows = [run.clip.encode_text(part, normalize=True).flatten(1).double() for part in tokens.split(256)]
        found: np.ndarray = torch.cat(rows).cpu().numpy()
        return found

    scale = float(run.clip.logit_scale_and_bias()[0].detach())
    return vocabulary.labels(names, embed=embed, scale=scale)
