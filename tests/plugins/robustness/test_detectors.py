"""Detectors, shares, typographic attacks and findings on planted data."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cliplens.errors import InputError, UnknownNameError
from cliplens_plugins.robustness import Trace, detected, detectors, energies, relative_shares, thresholds, write_word
from cliplens_plugins.robustness.eye import Reader
from cliplens_plugins.robustness.findings import ends, lead
from cliplens_plugins.robustness.options import attacks_in, levels_in
from cliplens_plugins.robustness.subject import targets
from cliplens_plugins.robustness.tables import paired, rate
from cliplens_plugins.robustness.typographic import scrambled, typographic, wrong_classes
from support.tiny_dictionaries import tiny_dictionary

ALIVE = np.arange(40) < 36


def planted(n: int, attacked: bool, seed: int, *, in_acts: bool = False) -> Trace:
    """Codes in which an attack raises latents 2 and 5; activations in which it moves nothing, or one direction."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.rand(n, 40, generator=generator)
    acts = torch.randn(n, 6, generator=generator)
    if attacked:
        codes[:, [2, 5]] += 2.0
        acts[:, 0] += 5.0 * in_acts
    return Trace(codes, acts, torch.rand(n, generator=generator))


def fitted(**how: bool):  # type: ignore[no-untyped-def]
    parts = [planted(60, attacked, seed, **how) for seed in (0, 1) for attacked in (False, True)]
    return detectors(*parts, alive=ALIVE)


def test_planted_latents_are_found_and_tell_attacks_apart() -> None:
    scores = fitted()
    own = scores["latents"]
    assert set(own.rises.topk(2).indices.tolist()) == {2, 5}
    assert set(own.latents.tolist()) <= {2, 5}
    clean, attacked, quiet = planted(80, False, 5), planted(80, True, 5), planted(200, False, 9)
    found = {n: detected(s, thresholds(s, quiet), clean, attacked) for n, s in scores.items()}
    assert found["latents"].auroc[0] == 1.0
    assert found["latents"].found[0.01][0] > 0.95
    assert 0.3 < found["linear probe"].auroc[0] < 0.7  # nothing lies in the activations
    assert 0.3 < found["reconstruction error"].auroc[0] < 0.7
    assert found["random latents"].auroc[0] < 0.9
    assert found["linear probe on codes"].auroc[0] > 0.95


def test_a_planted_direction_is_found_by_the_probe() -> None:
    scores = fitted(in_acts=True)
    clean, attacked = planted(80, False, 5), planted(80, True, 5, in_acts=True)
    assert detected(scores["linear probe"], {}, clean, attacked).auroc[0] > 0.99


def test_thresholds_let_at_most_their_rate_of_clean_pictures_through() -> None:
    score = lambda seen: seen.error.double().numpy()  # noqa: E731
    quiet = planted(200, False, 3)
    for limit, value in thresholds(score, quiet).items():
        assert (score(quiet) > value).mean() <= limit
    few = planted(10, False, 3)
    assert (score(few) > thresholds(score, few)[0.05]).sum() == 0


def test_intervals_hold_the_figure_and_narrow_with_more_pictures() -> None:
    score = lambda seen: seen.codes[:, 2].double().numpy()  # noqa: E731
    widths = []
    for n in (20, 320):
        clean, attacked = planted(n, False, 5), planted(n, False, 6)
        value, low, high = detected(score, {0.05: 0.5}, clean, attacked).auroc
        assert low <= value <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    share, low, high = rate(np.array([True] * 9 + [False]))
    assert 0 < low < share == 0.9 < high < 1
    a, b = np.array([True] * 10), np.array([False] * 10)
    assert paired(a, b) == (1.0, 1.0, 1.0)
    assert paired(a, a) == (0.0, 0.0, 0.0)


def test_shares_agree_with_a_slow_version() -> None:
    dictionary = tiny_dictionary(32, architecture="topk")
    reader = Reader(dictionary)
    generator = torch.Generator().manual_seed(0)
    clean, moved = torch.randn(2, 7, 3, 32, generator=generator).unbind(0)
    masks = np.stack([np.arange(48) % 3 == 0, np.arange(48) % 3 == 1])
    of_clean, of_change = energies(reader, masks, clean), energies(reader, masks, moved, clean)
    for picture in range(7):
        z, w = (reader.codes(x[picture]).double().numpy() for x in (clean, moved))
        for n, mask in enumerate(masks):
            assert of_clean[picture, n] == pytest.approx((z[:, mask] ** 2).sum())
            assert of_change[picture, n] == pytest.approx(((w - z)[:, mask] ** 2).sum())
    found = relative_shares(of_change, of_clean)
    for n, (value, low, high) in enumerate(found):
        share = of_change[:, n].sum() / of_change[:, -1].sum()
        assert value == pytest.approx(share / (of_clean[:, n].sum() / of_clean[:, -1].sum()))
        assert low <= value <= high


def test_a_class_without_energy_has_no_share() -> None:
    clean, moved = np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([[1.0, 2.0], [1.0, 2.0]])
    assert np.isnan(relative_shares(moved, clean)[0]).all()


# Typographic attacks: a planted reader looks at the ink, and a planted viewer at the colour of the picture.
CLASSES = ("i", "WWWWWW")


def embed(reads: bool):  # type: ignore[no-untyped-def]
    def of(pictures: Sequence[Image.Image]) -> Tensor:
        rows = []
        for picture in pictures:
            pixels = np.asarray(picture.convert("RGB")).astype(float)
            object_class = int(np.median(pixels[..., 0]) > np.median(pixels[..., 2]))
            grey = np.ptp(pixels, axis=2) == 0
            word_wide = grey.any(0).sum() > 30  # a wide box holds the long word
            said = int(word_wide) if reads and grey.any() else object_class
            rows.append(torch.eye(2)[said])
        return torch.stack(rows)

    return of


@pytest.mark.parametrize("reads", [True, False])
def test_a_model_that_reads_is_flipped_and_one_that_does_not_is_not(reads: bool) -> None:
    pictures = [Image.new("RGB", (96, 96), ("blue", "red")[n % 2]) for n in range(12)]
    ids, labels = [f"p{n}" for n in range(12)], np.arange(12) % 2
    found = typographic(embed(reads), pictures, ids, labels, CLASSES, torch.eye(2))
    assert found.right("clean").all()
    assert (found.wrong != labels).all()
    assert found.word("wrong word").all() == reads
    assert found.right("own word").all()
    assert found.right("wrong word").all() != reads


def test_words_fit_and_stand_where_the_id_says() -> None:
    for size in ((48, 48), (20, 60), (224, 160)):
        picture = Image.new("RGB", size, "green")
        marked = write_word(picture, "triangle", "a")
        assert marked.size == size
        changed = np.asarray(marked) != np.asarray(picture)
        assert 0 < changed.any(2).mean() < 0.9
        box, letters = (np.asarray(write_word(picture, "star", "b", letters=on)) for on in (False, True))
        assert (box != letters).any()
    places = {write_word(Image.new("RGB", (48, 48)), "cat", f"{n}").tobytes() for n in range(6)}
    assert len(places) == 6
    assert sorted(scrambled("triangle", "a")) == sorted("triangle")
    labels = np.arange(30) % 5
    assert (wrong_classes([str(n) for n in range(30)], labels, 5) != labels).all()


def test_targets_are_of_another_class_and_another_caption() -> None:
    ids = [f"p{n}" for n in range(20)]
    labels = np.arange(20) % 3
    captions = [f"c{n % 4}" for n in range(20)]
    found = targets(ids, labels, captions).numpy()
    assert (labels[found] != labels).all()
    assert all(captions[a] != captions[b] for a, b in enumerate(found))
    order = np.random.default_rng(0).permutation(20)
    again = targets([ids[n] for n in order], labels[order], [captions[n] for n in order]).numpy()
    assert all(order[again[k]] == found[order[k]] for k in range(20))  # ids decide, not the order
    with pytest.raises(InputError, match="take more pictures, or other labels"):
        targets(ids, np.zeros(20, dtype=np.int64), captions)


def test_lists_of_options_are_parsed_or_refused() -> None:
    assert levels_in(None) is None
    assert levels_in("8,1") == (1.0, 8.0)
    assert attacks_in(None) is None
    assert attacks_in("goal, margin") == ("margin", "goal")
    for wrong in ("", "a", "0", "-1", "1,,2", "300"):
        with pytest.raises(InputError, match="pass --eps 1,2,4,8"):
            levels_in(wrong)
    with pytest.raises(UnknownNameError, match="margin"):
        attacks_in("margni")


def test_figures_of_cells_are_read_back() -> None:
    assert lead("0.125 (0.000 to 0.250)") == 0.125
    assert ends("-0.125 (-0.250 to -0.010)") == (-0.25, -0.01)
    assert ends(0.5) == (0.5, 0.5)
