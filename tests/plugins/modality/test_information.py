"""Known atoms on COPY, AND, XOR, UNQ; a slow version; bias and its control."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.errors import InputError, UnknownNameError
from cliplens_plugins.modality.information import counts_of, decompose, shuffled

AND_SHARED = 0.311278124459133
GATES = {
    "COPY": (lambda a, b: a, [(0, 0), (1, 1)], (1.0, 0.0, 0.0, 0.0)),
    "UNQ": (lambda a, b: a, [(0, 0), (0, 1), (1, 0), (1, 1)], (0.0, 1.0, 0.0, 0.0)),
    "XOR": (lambda a, b: a ^ b, [(0, 0), (0, 1), (1, 0), (1, 1)], (0.0, 0.0, 0.0, 1.0)),
    "AND": (lambda a, b: a & b, [(0, 0), (0, 1), (1, 0), (1, 1)], (AND_SHARED, 0.0, 0.0, 0.5)),
}


def atoms_of(counts: np.ndarray, **options: object) -> list[float]:
    found = decompose(counts, **options)  # type: ignore[arg-type]
    return [float(x) for x in (found.redundancy, found.unique_image, found.unique_text, found.synergy)]


@pytest.mark.parametrize("redundancy", ["i_min", "mmi"])
@pytest.mark.parametrize("gate", GATES)
def test_known_atoms(gate: str, redundancy: str) -> None:
    rule, inputs, expected = GATES[gate]
    counts = np.zeros((2, 2, 2))
    for a, b in inputs:
        counts[a, b, rule(a, b)] += 1
    assert atoms_of(counts, redundancy=redundancy, corrected=False) == pytest.approx(expected, abs=1e-12)
    assert atoms_of(counts * 1e6, redundancy=redundancy) == pytest.approx(expected, abs=1e-5)


def slow(p: np.ndarray, redundancy: str) -> list[float]:
    """Williams and Beer's definitions, sum by sum."""
    p = p / p.sum()
    cells = list(itertools.product((0, 1), repeat=3))

    def information(source: object) -> float:
        total = 0.0
        for s, y in {(source(a, b), y) for a, b, y in cells}:  # type: ignore[operator]
            joint = sum(p[c] for c in cells if source(c[0], c[1]) == s and c[2] == y)  # type: ignore[operator]
            ps = sum(p[c] for c in cells if source(c[0], c[1]) == s)  # type: ignore[operator]
            py = sum(p[c] for c in cells if c[2] == y)
            total += joint * np.log2(joint / (ps * py)) if joint else 0.0
        return total

    def specific(source: object, y: int) -> float:
        py, total = sum(p[c] for c in cells if c[2] == y), 0.0
        for s in (0, 1):
            joint = sum(p[c] for c in cells if source(c[0], c[1]) == s and c[2] == y)  # type: ignore[operator]
            ps = sum(p[c] for c in cells if source(c[0], c[1]) == s)  # type: ignore[operator]
            total += joint / py * np.log2((joint / ps) / py) if joint else 0.0
        return total

    first, second, both = (lambda a, b: a), (lambda a, b: b), (lambda a, b: (a, b))
    i_a, i_b, i_ab = information(first), information(second), information(both)
    if redundancy == "mmi":
        shared = min(i_a, i_b)
    else:
        shared = sum(
            sum(p[c] for c in cells if c[2] == y) * min(specific(first, y), specific(second, y)) for y in (0, 1)
        )
    return [shared, i_a - shared, i_b - shared, i_ab - i_a - i_b + shared]


@pytest.mark.parametrize("redundancy", ["i_min", "mmi"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_agrees_with_the_slow_version_and_adds_up(redundancy: str, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(1, 50, (2, 2, 2)).astype(float)
    found = atoms_of(counts, redundancy=redundancy, corrected=False)
    assert found == pytest.approx(slow(counts, redundancy), abs=1e-12)
    assert min(found) >= -1e-12
    mirrored = atoms_of(counts.swapaxes(0, 1), redundancy=redundancy, corrected=False)
    assert mirrored == pytest.approx([found[0], found[2], found[1], found[3]], abs=1e-12)


def test_independent_sources_say_nothing_once_corrected() -> None:
    g = np.random.default_rng(0)
    raw, corrected = [], []
    for _ in range(300):
        counts = g.multinomial(200, np.full(8, 1 / 8)).reshape(2, 2, 2).astype(float)
        raw.append(sum(atoms_of(counts, corrected=False)))
        corrected.append(sum(atoms_of(counts)))
    assert np.mean(raw) > 0.008
    assert np.mean(corrected) < np.mean(raw) / 2


@pytest.mark.parametrize("redundancy", ["i_min", "mmi"])
def test_corrected_atoms_are_never_negative(redundancy: str) -> None:
    draw = np.random.default_rng(0)
    for pairs in (6, 20, 60) * 40:
        counts = draw.multinomial(pairs, draw.dirichlet(np.ones(8))).reshape(2, 2, 2).astype(float)
        atoms = atoms_of(counts, redundancy=redundancy)
        assert min(atoms) >= 0
        unique_or_shared = [atoms[0] + atoms[1], atoms[0] + atoms[2]]
        assert atoms[0] <= min(unique_or_shared)


def test_a_shuffled_target_is_the_control() -> None:
    g = np.random.default_rng(1)
    ids = tuple(f"p{i}" for i in range(2000))
    target = g.random(2000) < 0.3
    fires = target[:, None] & (g.random((2000, 1)) < 0.9)
    real = decompose(counts_of(fires, fires, target))
    control = decompose(counts_of(fires, fires, shuffled(target, ids)))
    assert real.redundancy[0] > 0.5
    assert control.redundancy[0] < 0.01
    assert shuffled(target, ids).sum() == target.sum()
    order = g.permutation(2000)
    again = shuffled(target[order], tuple(ids[i] for i in order))
    np.testing.assert_array_equal(again, shuffled(target, ids)[order])


def test_counts_are_counted() -> None:
    a, b, y = (np.array(x, dtype=bool) for x in ([0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 0]))
    counts = counts_of(a[:, None], b[:, None], y)
    assert counts.shape == (1, 2, 2, 2)
    assert counts[0, 0, 0].tolist() == [1, 0]
    assert counts[0, 1, 1].tolist() == [1, 1]
    assert counts.sum() == 4


def test_nothing_counted_is_nan_and_wrong_asks_are_refused() -> None:
    assert np.isnan(decompose(np.zeros((2, 2, 2))).synergy)
    with pytest.raises(InputError, match=r"counts of shape \[..., 2, 2, 2\]"):
        decompose(np.zeros((3, 2, 2)))
    with pytest.raises(UnknownNameError, match="'mmi'"):
        decompose(np.zeros((2, 2, 2)), redundancy="mmii")
