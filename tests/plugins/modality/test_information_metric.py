"""The streamed decomposition: known atoms, the slow counts, its control, any order of batches and merges."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.errors import UnknownNameError
from cliplens.records import Batch
from cliplens.tally import tally
from cliplens_plugins.modality import InformationMetric, counts_of, decompose
from support.planted import Planted, batch_of, batches_of, planted_codes

ATOMS = ("pid_redundancy", "pid_unique_image", "pid_unique_text", "pid_synergy")
N = 4000
GATES = {
    "COPY": (lambda a, b: a, True, (1.0, 0.0, 0.0, 0.0)),
    "UNQ": (lambda a, b: a, False, (0.0, 1.0, 0.0, 0.0)),
    "XOR": (lambda a, b: a ^ b, False, (0.0, 0.0, 0.0, 1.0)),
    "AND": (lambda a, b: a & b, False, (0.311278124459133, 0.0, 0.0, 0.5)),
}


def gate_batch(gate: str) -> Batch:
    """A latent that fires on images and captions in equal parts of all four ways, and the gate's output."""
    rule, copied, _ = GATES[gate]
    image = np.arange(N) % 2
    text = image if copied else np.arange(N) // 2 % 2
    ids = tuple(f"p{i}" for i in range(N))
    batch = batch_of(ids, torch.tensor(image[:, None] * 0.7), torch.tensor(text[:, None] * 2.0))
    return replace(batch, targets={gate: rule(image, text).astype(bool)})


@pytest.mark.parametrize("redundancy", ["i_min", "mmi"])
@pytest.mark.parametrize("gate", GATES)
def test_known_atoms(gate: str, redundancy: str) -> None:
    metric = InformationMetric(redundancy)
    metric.update(gate_batch(gate))
    found = metric.findings(None).columns
    assert [found[a][0] for a in ATOMS] == pytest.approx(GATES[gate][2], abs=2e-3)
    assert found["pid_shuffled"][0] < 2e-3


def asked(planted: Planted, size: int) -> list[Batch]:
    """The planted codes with two targets: a shared latent's concept, and a coin."""
    g = np.random.default_rng(7)
    shared = planted.classes.tolist().index("CrossD")
    holds = {"shared": (planted.image[:, shared] > 0).numpy(), "coin": g.random(len(planted.ids)) < 0.3}
    return [
        replace(batch, targets={t: h[n * size : n * size + len(batch.ids)] for t, h in holds.items()})
        for n, batch in enumerate(batches_of(planted, size))
    ]


def test_columns_equal_the_functions_on_the_slow_counts() -> None:
    planted = planted_codes(600, 5, dead=1)
    batches = asked(planted, 100)
    found = tally(batches, [InformationMetric()], decoder=None)
    assert found.failed == ()
    fires = (planted.image > 0).numpy(), (planted.text > 0).numpy()
    for target, suffix in (("shared", ""), ("coin", "_coin")):
        holds = np.concatenate([b.targets[target] for b in batches])
        atoms = decompose(counts_of(*fires, holds))
        for name in ("redundancy", "unique_image", "unique_text", "synergy"):
            column = found.table[f"pid_{name}{suffix}"]
            np.testing.assert_allclose(column[:-1], getattr(atoms, name)[:-1], rtol=0, atol=1e-12)
            assert np.isnan(column[-1])
    assert found.figures["targets"]["coin"] == pytest.approx(
        np.mean(np.concatenate([b.targets["coin"] for b in batches]))
    )
    rows = found.tables["Information of image and caption about a target, mean bits per living latent"]
    assert [(r["target"], r["redundancy"]) for r in rows[:3]] == [
        ("shared", "i_min"),
        ("shared", "mmi"),
        ("shared", "i_min, target shuffled"),
    ]


def test_a_coin_says_no_more_than_chance_and_a_concept_more() -> None:
    planted = planted_codes(2000, 20)
    table = tally(asked(planted, 500), [InformationMetric()], decoder=None).table
    k = planted.classes.tolist().index("CrossD")
    assert table["pid_redundancy"][k] > 10 * table["pid_shuffled"][k]
    coin = sum(table[f"{a}_coin"] for a in ATOMS)
    assert abs(np.mean(coin) - np.mean(table["pid_shuffled_coin"])) < 3e-4


def test_the_control_equals_targets_that_are_really_dealt_out_anew() -> None:
    planted = planted_codes(400, 5)
    batches = asked(planted, 400)
    control = tally(batches, [InformationMetric()], decoder=None).table["pid_shuffled"]
    g, drawn = np.random.default_rng(0), []
    for _ in range(200):
        holds = g.permutation(batches[0].targets["shared"])
        atoms = decompose(counts_of((planted.image > 0).numpy(), (planted.text > 0).numpy(), holds))
        drawn.append(atoms.redundancy + atoms.unique_image + atoms.unique_text + atoms.synergy)
    error = np.std(drawn, axis=0) / np.sqrt(20)
    assert (np.abs(control - np.mean(drawn, axis=0)) < 4 * error + 1e-6).all()


@given(seed=st.integers(0, 1000), size=st.integers(9, 200))
@settings(max_examples=10, deadline=None)
def test_batches_and_merges_do_not_matter(seed: int, size: int) -> None:
    planted = planted_codes(300, 4, seed=seed)
    whole, merged = InformationMetric(), InformationMetric()
    whole.update(asked(planted, 300)[0])
    for batch in reversed(asked(planted, size)):
        one, restored = InformationMetric(), InformationMetric()
        one.update(batch)
        restored.load_state(one.state())
        merged.merge(restored)
    expected, found = whole.findings(None), merged.findings(None)
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], values)
    assert found.figures == expected.figures


def test_without_a_target_it_is_left_out_with_a_note() -> None:
    found = tally(batches_of(planted_codes(50, 2)), [InformationMetric()], decoder=None)
    assert "it needs" in found.notes[0]
    assert "something asked about the pairs" in found.notes[0]
    with pytest.raises(UnknownNameError, match="'i_min'"):
        InformationMetric("imin")
