"""Retrieval, contrastive loss and zero-shot accuracy against slow definitions; pairs that share a picture or a text."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cliplens.errors import InputError
from cliplens.tasks import (
    contrastive_loss,
    ids_of_rows,
    nearest_prototype,
    other_right_pairs,
    retrieval,
    zero_shot,
)


def _rows(n: int, seed: int, d: int = 5) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=draw, dtype=torch.float64), dim=1)


def _slow_recall(image: Tensor, text: Tensor, images: list[int], captions: list[int], k: int) -> tuple[float, float]:
    """COCO's protocol, query by query: an image with its captions, a caption with its images."""
    pairs = set(zip(images, captions, strict=True))
    first_i = {i: images.index(i) for i in images}
    first_c = {c: captions.index(c) for c in captions}

    def share(queries: dict[int, int], others: dict[int, int], cosine: Tensor, right: object) -> float:
        hits = []
        for q, at in queries.items():
            scores = {o: float(cosine[at, place]) for o, place in others.items()}
            best = max(s for o, s in scores.items() if right(q, o))  # type: ignore[operator]
            ahead = sum(s >= best - 1e-12 for o, s in scores.items() if not right(q, o))  # type: ignore[operator]
            hits.append(ahead < k)
        return float(np.mean(hits))

    cosine = image @ text.T
    return (
        share(first_i, first_c, cosine, lambda i, c: (i, c) in pairs),
        share(first_c, first_i, cosine.T, lambda c, i: (i, c) in pairs),
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_retrieval_equals_its_definition_where_pictures_and_texts_are_shared(
    pairs: list[tuple[int, int]], seed: int
) -> None:
    images, captions = [i for i, _ in pairs], [c for _, c in pairs]
    image, text = _rows(5, seed)[images], _rows(5, seed + 1)[captions]
    for k in (1, 2):
        found = retrieval(image, text, (k,), image_ids=images, caption_ids=captions)
        slow = _slow_recall(image, text, images, captions, k)
        assert (found[f"image_to_text_r{k}"], found[f"text_to_image_r{k}"]) == pytest.approx(slow)


def test_ids_that_are_all_different_change_nothing() -> None:
    image, text = _rows(20, 1), _rows(20, 2)
    ids = [str(i) for i in range(20)]
    assert retrieval(image, text, image_ids=ids, caption_ids=ids) == retrieval(image, text)
    for bias in (None, -2.0):
        plain = contrastive_loss(image, text, 7.0, bias)
        assert contrastive_loss(image, text, 7.0, bias, image_ids=ids, caption_ids=ids) == plain


def test_ties_count_as_misses() -> None:
    alike = torch.ones(4, 3)
    assert set(retrieval(alike, alike, at=(1,)).values()) == {0.0}
    assert zero_shot(alike, torch.ones(2, 3), torch.zeros(4, dtype=torch.int64)) == 0.0


def test_equal_captions_are_right_answers() -> None:
    classes = torch.eye(3)[[0, 1, 2, 0, 1, 2]]
    said = ["a", "b", "c", "a", "b", "c"]
    assert set(retrieval(classes, classes, caption_ids=said).values()) == {1.0}
    assert retrieval(classes, classes, at=(1,))["image_to_text_r1"] == 0.0  # as texts that differ they are tied


def test_equal_captions_are_no_negatives() -> None:
    rows, said = _rows(6, 4), ["a"] * 6
    assert contrastive_loss(rows, rows, 9.0, caption_ids=said) == 0.0
    own_only = contrastive_loss(rows, rows, 9.0, -1.0, caption_ids=said)
    own = -torch.nn.functional.logsigmoid(9.0 * (rows * rows).sum(1) - 1.0).mean()
    assert own_only == pytest.approx(float(own))


def test_the_bias_of_siglip_counts() -> None:
    image, text = _rows(8, 5), _rows(8, 6)
    logits = 5.0 * image @ text.T
    for bias in (-3.0, 0.0, 2.0):
        signs = 2 * torch.eye(8) - 1
        slow = -torch.nn.functional.logsigmoid(signs * (logits + bias)).sum(1).mean()
        assert contrastive_loss(image, text, 5.0, bias) == pytest.approx(float(slow))


def test_right_captions_of_other_pairs_share_the_picture_or_the_text() -> None:
    others = other_right_pairs(4, ["x", "x", "y", "z"], ["a", "b", "b", "c"])
    # Picture x stands with the texts a and b; picture y with b.
    assert others.tolist() == [
        [False, True, True, False],
        [True, False, True, False],
        [False, True, False, False],
        [False, False, False, False],
    ]


def test_rows_are_identified_by_their_content() -> None:
    rows = torch.tensor([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0]])
    ids = ids_of_rows(rows)
    assert (ids[0] == ids[2], ids[0] == ids[1]) == (True, False)
    assert len(set(ids_of_rows(torch.arange(12).reshape(3, 2, 2)))) == 3


def test_the_nearest_prototype_is_the_first_of_equals() -> None:
    assert nearest_prototype(torch.eye(2), torch.ones(3, 2)).tolist() == [0, 0]


@pytest.mark.parametrize("ids", [{"image_ids": ["a"]}, {"caption_ids": ["a", "b", "c"]}])
def test_ids_out_of_step_are_refused(ids: dict[str, list[str]]) -> None:
    with pytest.raises(InputError, match="Expected as many images as captions"):
        retrieval(torch.eye(2), torch.eye(2), **ids)
    with pytest.raises(InputError, match="Expected as many images as captions"):
        contrastive_loss(torch.eye(2), torch.eye(2), 1.0, **ids)
