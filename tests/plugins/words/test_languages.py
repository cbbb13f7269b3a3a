"""Latents bound to a language, the same thing in two languages, names, and pieces of a tokenizer."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cliplens_hooks.models.emoji import emoji_tokenizer
from cliplens_plugins.words.languages import bound_latents, names_in, same_thing
from cliplens_plugins.words.tokens import coverage, piece_counter

LANGUAGES = ["en"] * 100 + ["de"] * 50 + ["ja"] * 50


def test_a_latent_of_one_language_is_bound_at_equal_numbers_of_captions() -> None:
    rng = np.random.default_rng(0)
    fires = rng.random((200, 4)) < 0.3
    fires[:, 0] = np.array([x == "ja" for x in LANGUAGES]) & (rng.random(200) < 0.6)
    fires[:, 3] = False
    found = bound_latents(fires, LANGUAGES, draws=100)
    assert found[0].latent == 0
    assert {b.latent for b in found} == {0, 1, 2}
    first = found[0]
    assert (first.language, first.share, first.languages, first.bound) == ("ja", 1.0, pytest.approx(1.0), True)
    assert first.firings == fires[:, 0].sum()
    assert not any(b.bound for b in found[1:])
    slow = [fires[np.array(LANGUAGES) == x, 1].mean() for x in ("de", "en", "ja")]
    second = next(b for b in found if b.latent == 1)
    assert second.share == pytest.approx(max(slow) / sum(slow))
    assert bound_latents(fires, ["en"] * 200) == []


def test_the_same_thing_in_two_languages_shares_latents_and_another_thing_fewer() -> None:
    rng = np.random.default_rng(1)
    things = rng.random((30, 40)) < 0.2
    fires = np.concatenate([things, things & (rng.random((30, 40)) < 0.8), rng.random((30, 40)) < 0.2])
    languages, pictures = ["en"] * 30 + ["de"] * 30 + ["xx"] * 30, [f"p{n}" for n in range(30)] * 3
    german, other = same_thing(fires, languages, pictures, "en")
    assert (german.language, other.language, german.pictures) == ("de", "xx", 30)
    # Pictures are compared in the order of their names, which decides the pairs of the control.
    order = sorted(range(30), key=lambda n: f"p{n}")
    slow = [(fires[n] & fires[30 + n]).sum() / (fires[n] | fires[30 + n]).sum() for n in order]
    assert german.overlap == pytest.approx(np.mean(slow))
    assert german.low < german.overlap < german.high
    assert german.gain_low > 0
    assert german.gain == pytest.approx(german.overlap - german.other)
    assert other.gain_low < 0 < other.gain_high
    assert same_thing(fires[:30], languages[:30], pictures[:30], "en") == []


def test_names_are_words_of_the_language_whose_correlation_holds_on_other_captions() -> None:
    rng = np.random.default_rng(2)
    captions = [f"{'猫の顔' if n % 3 == 0 else '犬'}、{'赤い' if rng.random() < 0.5 else '青い'}" for n in range(120)]
    codes = rng.random((120, 3)) * 0.1
    codes[:, 1] += np.array(["猫の顔" in c for c in captions])
    chosen_on = np.arange(120) % 2 == 0
    found = names_in(codes, captions, chosen_on)
    assert [(n.latent, n.word) for n in found] == [(1, "猫の顔")]
    assert found[0].strength > 0.9
    assert names_in(codes[:0], [], chosen_on[:0]) == []
    assert names_in(codes[:2], ["a", "b"], chosen_on[:2]) == []


def test_pieces_of_clips_tokenizer_are_counted_and_parts_of_characters_told() -> None:
    tokenizer = emoji_tokenizer()
    count = piece_counter(tokenizer)
    assert count is not None
    for text in ("woman", "a cat, smiling", "кошка", "ᚠᚠ"):
        ids = tokenizer.encode(text)
        slow = sum(
            not _decodes(bytes(tokenizer.byte_decoder[x] for x in tokenizer.decoder[i].replace("</w>", "")))
            for i in ids
        )
        assert (count(text).count, count(text).broken, count(text).unknown) == (len(ids), slow, 0)
    assert count("woman").broken == 0
    assert count("ᚠ").broken >= 2  # a rune: three bytes that no merge joins into a character


def _decodes(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_coverage_per_language() -> None:
    english, rune = coverage(emoji_tokenizer(), {"en": ["cat cat", "x " * 100], "none": [], "runes": ["ᚠ"]})
    assert (english.language, english.captions, english.truncated) == ("en", 2, 0.5)
    assert english.pieces_per_word == pytest.approx(1.0, abs=0.05)
    assert english.broken == 0
    assert rune.broken > 0.5
    assert rune.pieces_per_character == rune.pieces_per_word >= 2


def test_unknown_pieces_of_a_tokenizer_of_transformers_are_counted() -> None:
    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "cat": 1}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    count = piece_counter(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]"))
    assert count is not None
    pieces = count("cat dog cat")
    assert (pieces.count, pieces.broken, pieces.unknown) == (3, 0, 1)
    assert piece_counter(lambda texts: texts) is None
