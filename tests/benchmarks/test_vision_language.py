"""The tiny vision-language model of the benchmark of names is asked as it was trained."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cliplens.world import world_pairs
from cliplens_plugins.autointerp.local import LocalBackend
from cliplens_plugins.autointerp.name_questions import NameQuestion

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    from _vision_language.layout import NOTHING, OPEN, closed
    from _vision_language.questions import OTHERS, SHOWN, Captions, Questions
    from _vision_language.training import trained
finally:
    sys.path.remove(str(BENCHMARKS))

PAIRS, SEED = 300, 77


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vlm")
    trained(path, pairs=PAIRS, world_seed=SEED, seed=0, tower=0.5, language=0.5)
    return path


@pytest.mark.parametrize("pictures", [True, False])
def test_training_questions_are_those_of_the_namer(folder: Path, pictures: bool) -> None:
    """Token for token and pixel for pixel, through the processor and the chat template in the folder."""
    backend = LocalBackend(folder)
    assert backend.sees
    drawn = world_pairs(PAIRS, seed=SEED)
    captions = Captions([str(drawn[n].caption) for n in range(PAIRS)])
    asked = Questions(captions, backend._reader.tokenizer, 0).draw(pictures=pictures)
    shown = [drawn[n] for n in asked.pairs]
    assert len(shown) == SHOWN + OTHERS
    question = NameQuestion(0, "image" if pictures else "text", tuple(shown[:SHOWN]), tuple(shown[SHOWN:]))
    given = backend._given(question.messages())
    assert given["input_ids"][0].tolist() == asked.ids
    if pictures:
        seen = torch.stack([torch.from_numpy(np.asarray(p.image).copy()).permute(2, 0, 1) for p in shown])
        torch.testing.assert_close(given["pixel_values"][0], seen.float() / 127.5 - 1)


def test_answers_are_what_the_namer_reads(folder: Path) -> None:
    backend = LocalBackend(folder)
    tokenizer = backend._reader.tokenizer
    question = NameQuestion(0, "text", (), ())
    for words, name in (([OPEN, "red", "star", closed(0.9)], "red star"), ([NOTHING], None)):
        ids = tokenizer.convert_tokens_to_ids(words)
        assert tokenizer.unk_token_id not in ids
        assert question.read(tokenizer.decode(ids)).text == name


def test_the_words_of_an_answer_are_shared_by_the_pairs_that_fire_and_by_no_silent_one() -> None:
    from _vision_language.layout import tokenizer_of

    drawn = world_pairs(PAIRS, seed=SEED)
    captions = Captions([str(drawn[n].caption) for n in range(PAIRS)])
    tokenizer = tokenizer_of(captions.vocabulary)
    questions = Questions(captions, tokenizer, 1)
    named = 0
    for _ in range(60):
        asked = questions.draw(pictures=False)
        answer = tokenizer.convert_ids_to_tokens(asked.answer)
        if answer[0] == NOTHING or closed(0.9) not in answer:
            continue  # about nothing, or with noise
        named += 1
        words = set(answer[1:-2])
        assert all(words <= set(captions.words[n]) for n in asked.pairs[:SHOWN])
        assert not any(words <= set(captions.words[n]) for n in asked.pairs[SHOWN:])
    assert named > 10
