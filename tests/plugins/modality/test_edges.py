"""Edges of the modality metrics: nothing, one, ties, draws that are too small, and what each figure says then."""

import numpy as np
import pytest
import torch

from cliplens.errors import InputError
from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes
from cliplens.sites import Modality
from cliplens.statistics import percentile_interval, wilson_interval
from cliplens.tally import Sums, tally
from cliplens_plugins.modality import (
    BridgeMetric,
    GapMetric,
    GroundTruthMetric,
    InformationMetric,
    ModalityMetric,
    classify,
    classify_fixed,
    modality_gap,
)
from cliplens_plugins.modality.bridge import bridge
from cliplens_plugins.modality.causal import CausalEffect, causal_effect, pair_log_probability
from cliplens_plugins.modality.causal_splice import LatentEffect
from cliplens_plugins.modality.classes import class_counts
from cliplens_plugins.modality.draw import PairsDraw
from cliplens_plugins.modality.gap import _folds
from cliplens_plugins.modality.information import decompose, shuffled
from cliplens_plugins.modality.interval import _effective, effective_pairs, interval, ratio_interval
from cliplens_plugins.modality.null import classify_significant, swap_p, swap_q
from cliplens_plugins.modality.pictures import PictureSums, picture_sums
from cliplens_plugins.modality.sums import add_pairs, dense_sums
from support.planted import batch_of

NAN = float("nan")


def codes_of(ids: tuple[str, ...], image: np.ndarray, text: np.ndarray) -> PairedCodes:
    return PairedCodes(
        ids, *(SparseCodes.from_dense(torch.tensor(side, dtype=torch.float64)) for side in (image, text))
    )


# --- pictures


def five_of(pictures: int, captions: int) -> tuple[str, ...]:
    return tuple(f"{p}.png" + (f"#{n}" if n else "") for p in range(pictures) for n in range(captions))


def test_a_latent_that_the_draw_did_not_see_has_pictures_of_average_size() -> None:
    g = np.random.default_rng(0)
    ids = five_of(60, 5)
    image, text = ((g.random((300, 3)) < 0.5) * 1.0 for _ in range(2))
    image[:, 2] = text[:, 2] = 0
    draw = PairsDraw(firings=200)
    sums = Sums()
    codes = codes_of(ids, image, text)
    add_pairs(sums, codes)
    draw.update(codes)
    assert 5 < draw.n_pairs < 200
    got = picture_sums(sums, draw)
    n = sums["any"].double().numpy()
    assert got.pictures[2] == got.n2[2] == got.nd[2] == got.d2[2] == 0
    assert (got.pictures[:2] <= n[:2]).all()
    assert (got.n2[:2] >= n[:2]).all()
    assert got.repeated.tolist() == [True, True, False]
    # one latent fires on pairs outside of the draw only
    lone = Sums()
    whole = {name: sums[name].clone() for name in ("any", "d1", "d2")}
    for name, value in (("any", 10.0), ("d1", 2.0), ("d2", 1.5)):
        whole[name][2] = value
        lone.add(name, whole[name].double())
    found = picture_sums(lone, draw)
    raw = [found.pictures[2], found.n2[2], found.nd[2], found.d2[2]]
    mean = found.n2[2] / 10.0
    np.testing.assert_allclose(raw, [10 / mean, 10 * mean, 2 * mean, 1.5 * mean])
    assert 1 < mean < 6


def test_one_picture_that_comes_twice_is_one_unit() -> None:
    ids = ("a.png", "b.png", "b.png#1", "c.png")
    image, text = np.array([[3.0], [3.0], [3.0], [1.0]]), np.array([[1.0], [1.0], [1.0], [1.0]])
    sums, draw, codes = Sums(), PairsDraw(), codes_of(ids, image, text)
    add_pairs(sums, codes)
    draw.update(codes)
    found = picture_sums(sums, draw)
    d = np.array([0.25, 0.5, 0.0])  # 3 / 4 - 1 / 2, twice for b
    of_picture = {"pictures": 3, "n2": 1 + 4 + 1, "nd": 0.25 + 2 * 0.5, "d2": (d**2).sum()}
    assert {name: float(getattr(found, name)[0]) for name in of_picture} == pytest.approx(of_picture)
    assert found.repeated.tolist() == [True]


def test_no_pairs_and_pictures_of_one_pair_are_the_sums_over_pairs() -> None:
    sums = Sums()
    for name, value in (("any", [3.0, 0.0]), ("d1", [0.5, 0.0]), ("d2", [0.25, 0.0])):
        sums.add(name, torch.tensor(value))
    alone = picture_sums(sums, PairsDraw())
    assert [x.tolist() for x in (alone.pictures, alone.n2, alone.nd, alone.d2)] == [[3, 0], [3, 0], [0.5, 0], [0.25, 0]]
    assert not alone.repeated.any()


@pytest.mark.parametrize("captions", [1, 2, 5])
def test_identical_captions_count_as_their_pictures(captions: int) -> None:
    """Pairs of a picture that agree are one observation: n_eff falls to about the number of pictures."""
    n, up = 40, 26
    counts = np.full(n, float(captions))
    d = np.r_[np.full(up, 0.5), np.full(n - up, -0.5)]
    sums = PictureSums(
        *(np.array([float(x)]) for x in (n, (counts**2).sum(), (counts * captions * d).sum(), n * captions**2 / 4))
    )
    found = _effective(np.array([float(n * captions)]), np.array([captions * d.sum()]), sums)
    assert found[0] == pytest.approx(n, rel=1e-12)
    low, high = (
        float(x[0])
        for x in ratio_interval(
            *(torch.tensor([x], dtype=torch.float64) for x in (n * captions, captions * d.sum(), n * captions / 4)),
            pictures=sums,
        )
    )
    expected = wilson_interval(up / n, n)
    assert (low, high) == pytest.approx([float(x) for x in expected], abs=1e-12)


def test_the_effective_number_of_silent_latents_is_nan_and_of_single_pairs_the_number_of_pairs() -> None:
    sums = Sums()
    for name, value in (("any", [0, 7, 10]), ("d1", [0.0, 1.0, 2.0]), ("d2", [0.0, 1.5, 2.0])):
        sums.add(name, torch.tensor(value, dtype=torch.float64))
    alone = PictureSums(*(np.array(x, dtype=float) for x in ([0, 7, 10], [0, 7, 10], [0, 1, 2], [0, 1.5, 2])))
    found = effective_pairs(sums, alone)
    assert np.isnan(found[0])
    assert found[1:].tolist() == [7, 10]


@pytest.mark.parametrize(
    ("n", "share", "wilson"), [(200, 0.5, False), (199, 0.5, True), (200, 0.055, False), (200, 0.04, True)]
)
def test_percentiles_need_two_hundred_pictures_and_ten_in_the_minor_modality(
    n: int, share: float, wilson: bool
) -> None:
    sums, drawn = Sums(), Sums()
    up = round(n * share)
    for name, value in (("any", n), ("d1", up - n / 2), ("d2", n / 4)):
        sums.add(name, torch.tensor([value], dtype=torch.float64))
    g = torch.Generator().manual_seed(0)
    drawn.add("weight", torch.full((1, 50), float(n)))
    drawn.add("d", torch.randn(1, 50, generator=g, dtype=torch.float64))
    found, alone = interval(sums, drawn), interval(sums, Sums())
    assert found.wilson.tolist() == [wilson]
    assert alone.wilson.tolist() == [wilson]
    mds = 0.5 + drawn["d"].numpy() / drawn["weight"].numpy()
    expected = (alone.low, alone.high) if wilson else percentile_interval(mds)
    np.testing.assert_allclose((found.low, found.high), expected)
    assert np.isfinite(interval(sums, Sums()).low).all()
    pictures = PictureSums(*(np.array([float(x)]) for x in (n / 2, 2 * n, 0, n / 2)))
    assert interval(sums, drawn, pictures).wilson.all()


# --- false discoveries with several captions per picture


@pytest.mark.parametrize("captions", ["1", "2", "5", "mixed"])
def test_false_discoveries_among_real_effects_stay_below_nominal(captions: str) -> None:
    """A quarter of the latents prefer images (.8); of those called significant at most 5 % may be of the others."""
    wrong, right = [], []
    for seed in range(4):
        g = np.random.default_rng(seed)
        counts = g.choice([1, 2, 3, 5, 9], 250) if captions == "mixed" else np.full(250, int(captions))
        ids = tuple(f"{p}.png" + (f"#{n}" if n else "") for p, count in enumerate(counts) for n in range(count))
        real = np.arange(400) < 100
        there, coin = g.random((250, 400)) < 0.3, g.random((250, 400)) < np.where(real, 0.8, 0.5)
        there, seen = np.repeat(there, counts, 0), np.repeat(coin, counts, 0)
        codes = codes_of(ids, (there & seen) * 1.0, (there & ~seen) * 1.0)
        sums, draw = Sums(), PairsDraw()
        add_pairs(sums, codes)
        draw.update(codes)
        found = swap_q(sums, picture_sums(sums, draw)) <= 0.05
        wrong.append((found & ~real).sum() / max(1, found.sum()))
        right.append(found[real].mean())
    assert np.mean(wrong) <= 0.05
    assert np.mean(right) > 0.9


# --- classes


def test_edges_of_classes() -> None:
    assert classify([]).tolist() == []
    assert classify([NAN, NAN]).tolist() == ["dead", "dead"]
    assert classify([0.1, 0.9], tau=0).tolist() == ["TextD", "ImgD"]
    assert classify([0, 1], tau=1).tolist() == ["CrossD", "CrossD"]
    assert classify_fixed([0.2, 0.8, 0.19999, 0.80001]).tolist() == ["CrossD", "CrossD", "TextD", "ImgD"]
    assert classify_fixed([0.5, 0.4, 0.6], 0.5, 0.5).tolist() == ["CrossD", "TextD", "ImgD"]
    assert classify_fixed(torch.tensor([0.8, 0.2], dtype=torch.float32)).tolist() == ["CrossD", "CrossD"]
    for call, said in (
        (lambda: classify([0.1], tau=-1), "tau of 0 or more, but found -1"),
        (lambda: classify([0.1], tau=NAN), "tau of 0 or more, but found nan"),
        (lambda: classify_fixed([0.1], 0.6, 0.5), "low <= high, but found low 0.6 and high 0.5"),
        (lambda: classify_fixed([[0.1]]), r"one score per latent, but found an array of shape \(1, 1\)"),
    ):
        with pytest.raises(InputError, match=said):
            call()
    counted = class_counts(np.array(["undecided", "TextD"]))
    assert counted == {"ImgD": 0, "TextD": 1, "CrossD": 0, "undecided": 1, "dead": 0}
    assert "undecided" not in class_counts(np.array(["TextD"]))


def test_significance_needs_q_the_whole_interval_and_both_modalities() -> None:
    scores = np.array([0.9, 0.9, 0.9, 0.1, 0.1, 0.5, 0.5, 0.5, NAN, 0.5])
    low = np.array([0.81, 0.8, 0.81, 0.0, 0.0, 0.2, 0.19, 0.3, NAN, 0.2])
    high = np.array([0.95, 0.95, 0.95, 0.19, 0.2, 0.8, 0.8, 0.7, NAN, 0.81])
    q = np.array([0.05, 0.01, 0.051, 0.05, 0.01, 0.9, 0.9, 0.9, NAN, 0.9])
    both = np.array([True] * 7 + [False] + [True] * 2)
    found = classify_significant(scores, low, high, q, (0.2, 0.8), both)
    assert found.tolist() == [
        "ImgD",
        "undecided",
        "undecided",
        "TextD",
        "undecided",
        "CrossD",
        "undecided",
        "undecided",
        "dead",
        "undecided",
    ]


def test_p_of_even_ratios_is_one() -> None:
    assert swap_p(torch.tensor([0.0, 0.0]).double(), torch.tensor([0.0, 2.0]).double()).tolist() == [1.0, 1.0]


# --- sums, bridges, gaps, information


@pytest.mark.parametrize("block", [1, 6, 7, 1 << 22])
def test_sums_of_dense_codes_do_not_depend_on_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(1)
    image, text = (torch.randn(11, 3, generator=g, dtype=torch.float64).clamp_min(0) for _ in range(2))
    whole = dense_sums(image, text)
    monkeypatch.setattr("cliplens_plugins.modality.sums._BLOCK", block)
    parts = dense_sums(image, text)
    for name in ("any", "fires_both", "d1", "d3", "eps", "text2"):
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-14, atol=1e-14)
    assert int(parts["pairs"]) == 11
    assert dense_sums(image[:0], text[:0])["any"].tolist() == [0, 0, 0]


def rows(n: int = 300, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    image, text = (
        (torch.rand(n, 6, generator=g, dtype=torch.float64) < 0.3) * torch.rand(n, 6, generator=g, dtype=torch.float64)
        for _ in range(2)
    )
    image[:, 3:5] = 0  # 3 and 4 are TextD
    text[:, :2] = 0  # 0 and 1 are ImgD
    return image, text


def test_each_partner_is_the_strongest_and_ties_go_to_the_smaller_number() -> None:
    image, text = rows()
    draw = torch.Generator().manual_seed(4)
    decoder = torch.randn(6, 5, generator=draw, dtype=torch.float64)
    found = tally([batch_of(tuple(f"p{i}" for i in range(300)), image, text)], [BridgeMetric()], decoder=decoder)
    whole = bridge(image, text, decoder).numpy()
    partner = found.table["bridge_partner"]
    for j in (0, 1):
        assert partner[j] == [3, 4][int(whole[j, [3, 4]].argmax())]
        assert found.table["bridge"][j] == pytest.approx(whole[j, [3, 4]].max())
    for k in (3, 4):
        assert partner[k] == [0, 1][int(whole[[0, 1], k].argmax())]
        assert found.table["bridge"][k] == pytest.approx(whole[[0, 1], k].max())
    assert partner[[2, 5]].tolist() == [-1, -1]
    assert np.isnan(found.table["bridge"][[2, 5]]).all()
    (table,) = found.tables.values()
    assert [row["bridge"] for row in table] == sorted((row["bridge"] for row in table), reverse=True)
    assert len(table) == 4
    assert found.figures["bridge_pairs"] == 300
    same = torch.ones(6, 5, dtype=torch.float64)
    image[:, 1], text[:, 4] = image[:, 0], text[:, 3]
    tied = tally([batch_of(tuple(f"p{i}" for i in range(300)), image, text)], [BridgeMetric()], decoder=same).table
    assert tied["bridge_partner"].tolist() == [3, 3, -1, 0, 0, -1]
    none = tally([batch_of(("a", "b"), image[:2], text[:2])], [BridgeMetric()], decoder=None)
    assert none.notes == ("Bridges were not computed: they need pairs and the dictionary's decoder.",)


def test_the_gap_by_hand_and_its_folds() -> None:
    image, text = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[0.0, 3.0]])
    found = modality_gap(image, text)
    assert found["centroid"] == pytest.approx(2**0.5)
    assert found["energy"] == pytest.approx(2 * 2**0.5)
    assert np.isnan(found["separable"])
    assert _folds(7, None).tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert _folds(4, np.array([9, 3, 9, 5])).tolist() == [2, 0, 2, 1]
    assert modality_gap(image[:1], image[:1])["energy"] == 0.0
    apart = modality_gap(np.eye(2)[[0, 0, 1, 1]], -np.eye(2)[[0, 0, 1, 1]])
    assert apart["separable"] == 1.0
    for a, b in ((image, text[:, :1]), (image[:0], text)):
        with pytest.raises(InputError, match="image and text embeddings of equal width"):
            modality_gap(a, b)


def test_the_control_of_the_gap_removes_as_many_shared_latents() -> None:
    image, text = rows(120)
    ids = tuple(f"p{i}" for i in range(120))
    codes = PairedCodes(ids, *(SparseCodes.from_dense(x) for x in (image, text)))
    decoder = torch.eye(6, dtype=torch.float64)
    acts = PairedActs(ids, image + 1, text + 2)
    found = tally([Batch(acts, codes, acts, raw=acts)], [GapMetric()], decoder=decoder)
    table = {row["activations"]: row for row in found.tables["Modality gap"]}
    assert {what: row["latents"] for what, row in table.items()} == {
        "as they are": 0,
        "without ImgD and TextD latents": 4,
        "without as many CrossD latents": 2,
    }
    as_is = modality_gap(image + 1, text + 2)
    assert table["as they are"]["centroid"] == pytest.approx(as_is["centroid"])
    kept = torch.tensor([0, 0, 1, 0, 0, 1.0], dtype=torch.float64)
    without = modality_gap(image * kept + 1, text * kept + 2)
    assert table["without ImgD and TextD latents"]["centroid"] == pytest.approx(without["centroid"])
    bare = tally([Batch(acts, codes, acts, raw=acts)], [GapMetric()], decoder=None)
    assert bare.notes[0].startswith("The modality gap was not measured")


def test_information_of_nothing_and_of_a_shuffled_target() -> None:
    assert np.isnan(decompose(np.zeros((2, 2, 2))).synergy)
    target = np.arange(40) < 9
    ids = tuple(f"p{i}" for i in range(40))
    again = shuffled(target, ids, 3)
    assert again.sum() == 9
    assert (again != target).any()
    order = np.random.default_rng(0).permutation(40)
    turned = shuffled(target[order], tuple(ids[i] for i in order), 3)
    assert (turned == again[order]).all()
    assert (shuffled(target, ids, 4) != again).any()
    nothing = InformationMetric().findings(None)
    assert nothing.notes == ("Information was not decomposed, because the pairs have no target.",)


def test_every_target_has_columns_and_silent_latents_none() -> None:
    image, text = rows()
    image[:, 5] = text[:, 5] = 0
    ids = tuple(f"p{i}" for i in range(300))
    acts = PairedActs(ids, torch.zeros(300, 1), torch.zeros(300, 1))
    codes = PairedCodes(ids, *(SparseCodes.from_dense(x) for x in (image, text)))
    fires = (image[:, 0] > 0).numpy()
    other = (text[:, 3] > 0).numpy()
    found = tally([Batch(acts, codes, acts, targets={"a": fires, "b": other})], [InformationMetric()], decoder=None)
    assert found.table["pid_unique_image"][0] > 0.8
    assert found.table["pid_unique_text_b"][3] > 0.8
    assert found.table["pid_unique_image"][3] < 0.02
    for name in ("pid_redundancy", "pid_synergy_b", "pid_shuffled", "pid_shuffled_b"):
        assert np.isnan(found.table[name]).tolist() == [False] * 5 + [True]
    assert np.nanmax(found.table["pid_shuffled"]) < 0.05
    assert found.figures["targets"] == {"a": fires.mean(), "b": other.mean()}
    (table,) = found.tables.values()
    assert [(row["target"], row["redundancy"]) for row in table] == [
        (target, rule) for target in "ab" for rule in ("i_min", "mmi", "i_min, target shuffled")
    ]


# --- causal effects


def test_what_is_beyond_random_directions_and_the_share_of_a_tower() -> None:
    effect = CausalEffect(-0.5, 0.25, -0.1, {"image": (-0.2, 0.1), "text": (NAN, NAN), "both": (0.0, 0.0)})
    assert effect.beyond_random("image") == pytest.approx(-0.3)
    assert effect.beyond_random("text") == 0.25
    assert effect.beyond_random("both") == -0.1
    assert LatentEffect(0, effect, None).modality == pytest.approx(2 / 3)
    assert np.isnan(LatentEffect(0, CausalEffect(0.0, 0.0, 0.0, {}), None).modality)


def test_two_pairs_are_enough_and_one_is_not() -> None:
    acts, code, along = torch.eye(2), torch.tensor([0.5, 0.0]), torch.tensor([1.0, 0.0])
    found = causal_effect(acts, acts, code, code, along, scale=2.0, n_random=0)
    unit = torch.nn.functional.normalize
    gone = unit(acts - code[:, None] * along, dim=1).double()
    before = pair_log_probability(acts.double(), acts.double(), 2.0)
    assert found.image == pytest.approx(pair_log_probability(gone, acts.double(), 2.0) - before)
    assert found.text == pytest.approx(pair_log_probability(acts.double(), gone, 2.0) - before)
    assert found.both == pytest.approx(pair_log_probability(gone, gone, 2.0) - before)
    assert all(np.isnan(m) for m, _ in found.random.values())
    with pytest.raises(InputError, match="at least two pairs, but found 1"):
        causal_effect(acts[:1], acts[:1], code[:1], code[:1], along, scale=2.0)


# --- truth


def test_a_metric_without_truth_says_so_and_refuses_batches_without_it() -> None:
    assert GroundTruthMetric().findings(None).notes == ("No pairs with ground truth were seen.",)
    image, text = rows(4)
    with pytest.raises(InputError, match="pairs with ground truth, but found a batch without"):
        GroundTruthMetric().update(batch_of(tuple("abcd"), image, text))


@pytest.mark.parametrize("side", ["image", "text"])
def test_one_modality_has_firing_rates_and_no_scores(side: Modality) -> None:
    image, _ = rows(30)
    ids = tuple(f"p{i}" for i in range(30))
    codes = SparseCodes.from_dense(image)
    acts = PairedActs(ids, *((torch.zeros(30, 1), None) if side == "image" else (None, torch.zeros(30, 1))))
    paired = PairedCodes(ids, codes if side == "image" else None, codes if side == "text" else None)
    metric = ModalityMetric()
    metric.update(Batch(acts, paired, acts))
    found = metric.findings(None)
    other = "text" if side == "image" else "image"
    np.testing.assert_allclose(found.columns[f"fire_{side}"], (image > 0).double().mean(0).numpy())
    assert np.isnan(found.columns[f"fire_{other}"]).all()
    assert found.figures["alive"] == int((image > 0).any(0).sum()) == 4
    assert found.notes == ("Modality scores need images and captions: one was given.",)
    assert ModalityMetric().findings(None).notes == ("Modality was not measured, because there were no codes.",)
