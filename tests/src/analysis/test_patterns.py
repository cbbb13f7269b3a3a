"""Head scores: TransformerLens' own measure where it applies, and masks one can count by hand."""

import pytest
import torch
from transformer_lens import head_detector

import cliplens
from cliplens.analysis import PATTERNS, head_scores
from cliplens.errors import MismatchError, UnknownNameError
from cliplens.hooked import HookedCLIP
from support.tiny import TinyTokenizer, tiny_images, tiny_model, tiny_tokens

FULL = torch.tensor([[47, 5, 6, 5, 6, 9, 5, 48], [47, 8, 8, 3, 4, 8, 3, 48]])


@pytest.fixture(scope="module")
def clip() -> HookedCLIP:
    return cliplens.wrap(tiny_model().double(), tokenizer=TinyTokenizer())


@pytest.mark.parametrize("options", [{}, {"exclude_bos": True}, {"exclude_current_token": True}])
@pytest.mark.parametrize("name", head_detector.HEAD_NAMES)
@torch.no_grad()
def test_scores_on_full_captions_are_transformer_lens_own(
    clip: HookedCLIP, name: str, options: dict[str, bool]
) -> None:
    scores = head_scores(clip.text, FULL, name, **options)
    _, cache = clip.text.run_with_cache(FULL)
    told = {"exclude_bos": False, "exclude_current_token": False, "error_measure": "mul", **options}
    for layer in range(3):
        for head in range(3):
            slow = [
                head_detector.compute_head_attention_similarity_score(
                    cache["pattern", layer][row, head],
                    getattr(head_detector, f"get_{name}_detection_pattern")(FULL[row : row + 1]),
                    **told,
                )
                for row in range(2)
            ]
            assert float(scores[layer, head]) == pytest.approx(sum(slow) / 2, abs=1e-6)


@torch.no_grad()
def test_padding_does_not_count(clip: HookedCLIP) -> None:
    short = torch.tensor([[47, 5, 48, 0, 0, 0, 0, 0]])
    _, cache = clip.text.run_with_cache(short)
    inside = cache["pattern", 1][0, 2, :3, :3]
    expected = float((inside[1, 0] + inside[2, 1]) / inside.sum())
    assert float(head_scores(clip.text, short, "previous_token_head")[1, 2]) == pytest.approx(expected)


@torch.no_grad()
def test_directions_on_the_grid_are_where_they_are_called(clip: HookedCLIP) -> None:
    images = tiny_images().double()
    _, cache = clip.vision.run_with_cache(images)
    attention = cache["pattern", 0][:, 1]
    # class token, then patches 1 2 / 3 4
    by_hand = {
        "left": [(2, 1), (4, 3)],
        "right": [(1, 2), (3, 4)],
        "above": [(3, 1), (4, 2)],
        "below": [(1, 3), (2, 4)],
        "class_token": [(q, 0) for q in range(5)],
        "special_tokens": [(q, 0) for q in range(5)],
        "self": [(q, q) for q in range(5)],
        "same_row": [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (3, 4), (4, 3), (4, 4)],
        "same_column": [(1, 1), (1, 3), (3, 1), (3, 3), (2, 2), (2, 4), (4, 2), (4, 4)],
        "neighbours": [(q, k) for q in range(1, 5) for k in range(1, 5) if q != k],
    }
    assert set(by_hand) == set(PATTERNS["vision"])
    for name, places in by_hand.items():
        slow = sum(attention[:, q, k] for q, k in places) / attention.sum((1, 2))
        assert float(head_scores(clip.vision, images, name)[0, 1]) == pytest.approx(float(slow.mean()))


def test_everywhere_is_one_and_nowhere_is_nothing(clip: HookedCLIP) -> None:
    images = tiny_images().double()
    torch.testing.assert_close(
        head_scores(clip.vision, images, torch.ones(5, 5, dtype=torch.bool)), torch.ones(3, 4).double()
    )
    assert not head_scores(clip.vision, images, torch.zeros(5, 5, dtype=torch.bool)).any()


@pytest.mark.parametrize("name", PATTERNS["text"])
def test_all_patterns_run_on_captions_with_an_appended_token(name: str) -> None:
    clip = cliplens.wrap(tiny_model("coca"), tokenizer=TinyTokenizer())
    scores = head_scores(clip.text, tiny_tokens(), name)
    assert scores.shape == (3, 3)
    assert ((scores >= 0) & (scores <= 1)).all()


@torch.no_grad()
def test_an_appended_token_counts_and_padding_before_it_does_not() -> None:
    clip = cliplens.wrap(tiny_model("coca"), tokenizer=TinyTokenizer())
    short = torch.tensor([[47, 5, 48, 0, 0, 0, 0, 0]])
    _, cache = clip.text.run_with_cache(short)
    kept = [0, 1, 2, 8]
    inside = cache["pattern", 1][0, 2][kept][:, kept]
    expected = float(inside[:, 0].sum() / inside.sum())
    assert float(head_scores(clip.text, short, "start_token")[1, 2]) == pytest.approx(expected)


def test_unknown_patterns_and_sizes_are_refused(clip: HookedCLIP) -> None:
    with pytest.raises(UnknownNameError, match="previous_token_head"):
        head_scores(clip.text, FULL, "previous_token")
    with pytest.raises(MismatchError, match=r"\[5, 5\]"):
        head_scores(clip.vision, tiny_images().double(), torch.ones(4, 4, dtype=torch.bool))
