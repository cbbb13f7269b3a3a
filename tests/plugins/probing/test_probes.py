"""k-sparse probes and absorption on planted latents, against slow versions."""

import numpy as np
import pytest
from scipy.optimize import minimize

from cliplens.errors import InputError
from cliplens.keys import held_out, pair_keys
from cliplens_plugins.probing import absorption, sparse_probe
from cliplens_plugins.probing.logistic import fit_logistic
from cliplens_plugins.probing.sparse_probe import ranked, split


def planted(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Codes of 30 latents, latent 7 of which fires with the label; two captions a picture."""
    g = np.random.default_rng(seed)
    pictures = [f"p{i // 2}" for i in range(n)]
    of_picture = g.random(n // 2) < 0.4
    labels = np.repeat(of_picture, 2)
    codes = g.exponential(size=(n, 30)) * (g.random((n, 30)) < 0.2)
    codes[:, 7] = np.where(labels & (g.random(n) < 0.9), 1 + g.random(n), 0)
    return codes, labels, pictures


def test_logistic_regression_is_the_minimum_of_its_loss() -> None:
    g = np.random.default_rng(0)
    rows = np.hstack([g.normal(size=(60, 3)) * [1, 10, 0.1] + [0, 5, 0], np.ones((60, 1))])
    labels = rows[:, 0] + 0.1 * rows[:, 1] + g.normal(size=60) > 0.4
    found = fit_logistic(rows, labels)
    mean, spread = rows.mean(0), np.where(rows.std(0) > 0, rows.std(0), 1)

    def loss(p: np.ndarray) -> float:
        odds = [float(((r - mean) / spread) @ p[:-1] + p[-1]) for r in rows]
        log = sum(np.log1p(np.exp(-o if y else o)) for o, y in zip(odds, labels, strict=True)) / 60
        return log + 1e-3 / 2 * float(p[:-1] @ p[:-1])

    slow = minimize(loss, np.zeros(5), method="Nelder-Mead", options={"maxiter": 9000, "xatol": 1e-9, "fatol": 1e-13})
    np.testing.assert_allclose(found.weights * spread, slow.x[:-1], atol=2e-3)
    assert found.weights[3] == 0
    standardised = np.append(found.weights * spread, found.bias + mean @ found.weights)
    assert loss(standardised) <= slow.fun + 1e-9


def test_a_planted_latent_is_found_and_controls_are_at_chance() -> None:
    codes, labels, pictures = planted()
    one, more = sparse_probe(codes, labels, pictures, (1, 16))
    assert one.latents == (7,)
    assert one.auroc > 0.9
    assert one.low < one.auroc < one.high
    assert abs(one.permuted - 0.5) < 0.2
    assert abs(one.random - 0.5) < 0.1
    assert len(more.latents) == 16
    assert more.latents[0] == 7
    assert sparse_probe(codes, labels, pictures, (99,))[0].k == 30


def test_the_probe_equals_the_slow_way() -> None:
    codes, labels, pictures = planted(200, 3)
    (found,) = sparse_probe(codes, labels, pictures, (2,), seed=5)
    _, in_test = split(pictures, 5)
    train = ~in_test
    gaps = [abs(codes[train & labels, k].mean() - codes[train & ~labels, k].mean()) for k in range(30)]
    best = sorted(range(30), key=lambda k: (-gaps[k], k))[:2]
    assert found.latents == tuple(best)
    scores = fit_logistic(codes[np.ix_(train, best)], labels[train]).score(codes[np.ix_(in_test, best)])
    up, down = scores[labels[in_test]], scores[~labels[in_test]]
    slow = np.mean([1.0 if u > d else 0.5 if u == d else 0.0 for u in up for d in down])
    assert found.auroc == pytest.approx(slow, abs=1e-12)


def test_test_labels_do_not_reach_the_choice_of_latents() -> None:
    codes, labels, pictures = planted()
    _, in_test = split(pictures, 0)
    told = np.where(in_test, ~labels, labels)
    assert sparse_probe(codes, told, pictures)[0].latents == sparse_probe(codes, labels, pictures)[0].latents
    assert sparse_probe(codes, told, pictures)[0].auroc < 0.1


def test_captions_of_a_picture_stay_together_and_more_rows_move_none() -> None:
    pictures = [f"p{i // 5}" for i in range(1000)]
    number, in_test = split(pictures, 1)
    assert all(len(set(in_test[number == n])) == 1 for n in range(200))
    assert 0.2 < in_test.mean() < 0.4
    assert (split(pictures[:400], 1)[1] == in_test[:400]).all()
    assert (split(pictures, 2)[1] != in_test).any()


def test_pairs_a_run_keeps_from_training_are_split_like_any_others() -> None:
    ids = np.array([f"p{i}.jpg" for i in range(3000)])
    scored = ids[held_out(pair_keys(ids.tolist()), 0.2)].tolist()
    for seed in range(3):
        assert 0.2 < split(scored, seed)[1].mean() < 0.4


def test_one_class_alone_gives_nan_and_rows_out_of_step_are_refused() -> None:
    codes, labels, pictures = planted(60)
    assert np.isnan(sparse_probe(codes, np.ones(60, bool), pictures)[0].auroc)
    with pytest.raises(InputError, match="labels and codes for the same samples"):
        sparse_probe(codes, labels[:-1], pictures)
    with pytest.raises(InputError, match="a picture for each of 60 rows"):
        sparse_probe(codes, labels, pictures[:-1])


def test_ties_of_the_ranking_go_by_number() -> None:
    codes = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    assert ranked(codes, np.array([True, False])).tolist() == [2, 0, 1]


def absorbing(share: float, n: int = 800) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Latent 0 is the attribute's; on a share of the positive rows latent 1, which holds the attribute too, fires
    instead. Latent 2 is unrelated."""
    g = np.random.default_rng(1)
    labels, instead = g.random(n) < 0.5, g.random(n) < share
    decoder = np.array([[1.0, 0, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1.0, 0]])
    codes = np.zeros((n, 3))
    codes[:, 0] = labels & ~instead
    codes[:, 1] = 1.2 * (labels & instead)
    codes[:, 2] = g.random(n) < 0.5
    return codes @ decoder, codes, decoder, labels, [f"p{i}" for i in range(n)]


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_absorption_finds_the_planted_share(share: float) -> None:
    acts, codes, decoder, labels, pictures = absorbing(share)
    found = absorption(acts, codes, decoder, labels, pictures)
    assert found.main == 0
    assert found.absorbed == found.silent == pytest.approx(share, abs=0.06)
    assert found.control == 0


def test_absorption_equals_the_slow_way() -> None:
    g = np.random.default_rng(4)
    labels = g.random(300) < 0.4
    decoder = g.normal(size=(6, 5))
    codes = g.exponential(size=(300, 6)) * (g.random((300, 6)) < 0.4)
    codes[:, 2] += labels * (g.random(300) < 0.7)
    acts, pictures = codes @ decoder, [f"p{i}" for i in range(300)]
    found = absorption(acts, codes, decoder, labels, pictures, aligned=0.1)
    _, in_test = split(pictures, 0)
    train = ~in_test
    along = acts[train & labels].mean(0) - acts[train & ~labels].mean(0)
    along /= np.linalg.norm(along)
    assert found.main == 2
    test = [int(i) for i in np.flatnonzero(in_test)]
    usual = np.mean([codes[i, 2] * (decoder[2] @ along) for i in test if labels[i] and codes[i, 2] != 0])

    def carried(i: int) -> bool:
        if codes[i, 2] != 0:
            return False
        adds = {k: codes[i, k] * (decoder[k] @ along) for k in range(6) if k != 2}
        best = max(adds, key=lambda k: adds[k])
        return bool(
            decoder[best] @ along / np.linalg.norm(decoder[best]) >= 0.1 and adds[best] >= usual / 2 and usual > 0
        )

    for value, expected in ((found.absorbed, True), (found.control, False)):
        rows = [i for i in test if labels[i] == expected]
        assert value == pytest.approx(np.mean([carried(i) for i in rows]), abs=1e-12)


def test_absorption_without_both_classes_or_without_firing_is_nan() -> None:
    acts, codes, decoder, labels, pictures = absorbing(0.1, 60)
    none = absorption(acts, codes, decoder, np.zeros(60, bool), pictures)
    assert none.main == -1
    assert np.isnan([none.silent, none.absorbed, none.control]).all()
    _, in_test = split(pictures, 0)
    quiet = np.where(in_test[:, None], 0.0, codes)
    found = absorption(acts, quiet, decoder, labels, pictures)
    assert found.silent == 1.0
    assert np.isnan(found.absorbed)
