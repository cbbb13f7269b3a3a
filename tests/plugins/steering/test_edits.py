"""Edits: the arithmetic of each operation, against slow obvious versions in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cliplens.errors import DamagedError, InputError, MismatchError, UnknownNameError
from cliplens.records import Edit, LatentTable, SparseCodes
from cliplens_plugins import steering as s
from support.tiny_dictionaries import tiny_dictionary

D_SAE = 12


def codes(rows: int = 5, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, D_SAE, generator=g, dtype=torch.float64).relu()


def obvious(c: Tensor, edit: Edit, dose: float, ref: Tensor) -> Tensor:
    """Entry by entry, as the table in operations.py says."""
    out = c.clone()
    targets = edit.options.get("targets", ())
    for row in range(len(c)):
        for k in (*edit.latents, *targets):
            x = float(c[row, k])
            if edit.options.get("where") == "firing" and x <= 0:
                continue
            if edit.operation == "add" or k in targets:
                y = x + dose * edit.strength
            elif edit.operation == "set":
                y = x + dose * (edit.strength - x)
            elif edit.operation == "scale":
                y = x * (1 + dose * (edit.strength - 1))
            elif edit.operation == "clamp":
                low, high = edit.options.get("low"), edit.options.get("high")
                kept = max(x, low) if low is not None else x
                y = x + dose * ((min(kept, high) if high is not None else kept) - x)
            elif edit.operation in ("ablate", "replace"):
                y = x * (1 - min(dose, 1))
            else:
                y = x + dose * edit.strength * (float(ref[0, k]) - x)
            out[row, k] = y
    return out


EDITS = {
    "add": s.add([1, 4], 2.5),
    "add where firing": s.add([1, 4], 2.5, where="firing"),
    "set": s.set_to([0, 3], 1.5),
    "scale": s.scale([2, 5, 7], -0.5),
    "clamp": s.clamp([1, 2, 3], 0.2, 0.6),
    "clamp above": s.clamp([1, 2, 3], high=0.1),
    "ablate": s.ablate([0, 1, 2]),
    "replace": s.replace([0, 6], [3, 9], 2.0),
    "swap": s.swap([0, 4, 8], 0.7),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("dose", [0.0, 0.5, 1.0, 2.0])
def test_the_arithmetic_is_the_table(name: str, dose: float) -> None:
    c, ref = codes(), codes(1, seed=9)
    found = s.apply_edit(c, EDITS[name], dose=dose, reference=ref)
    torch.testing.assert_close(found, obvious(c, EDITS[name], dose, ref), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", EDITS)
def test_dose_0_changes_nothing_and_other_latents_never_change(name: str) -> None:
    c, ref = codes(), codes(1, seed=9)
    before = c.clone()
    assert torch.equal(s.apply_edit(c, EDITS[name], dose=0.0, reference=ref), c)
    after = s.apply_edit(c, EDITS[name], reference=ref)
    named = {*EDITS[name].latents, *EDITS[name].options.get("targets", ())}
    others = [k for k in range(D_SAE) if k not in named]
    assert torch.equal(after[:, others], c[:, others])
    assert torch.equal(c, before), "the given codes are left alone"


def test_known_answers() -> None:
    c = torch.tensor([[1.0, 0.0, 2.0, 0.0]])
    assert s.apply_edit(c, s.replace([0], [1], 3.0)).tolist() == [[0.0, 3.0, 2.0, 0.0]]
    assert s.apply_edit(c, s.ablate([0, 2]), dose=5.0).tolist() == [[0.0, 0.0, 0.0, 0.0]]
    ref = torch.tensor([[0.0, 4.0, 0.0, 0.0]])
    assert s.apply_edit(c, s.swap([0, 1]), reference=ref).tolist() == [[0.0, 4.0, 2.0, 0.0]]
    assert s.apply_edit(c, s.add([1, 2], 1.0, where="firing")).tolist() == [[1.0, 0.0, 3.0, 0.0]]


def test_edits_are_done_in_order() -> None:
    c = codes()
    both = s.apply_edits(c, [s.ablate([1]), s.add([1], 2.0)])
    assert torch.equal(both[:, 1], torch.full((5,), 2.0, dtype=torch.float64))
    other = s.apply_edits(c, [s.add([1], 2.0), s.ablate([1])])
    assert torch.equal(other[:, 1], torch.zeros(5, dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, D_SAE - 1), min_size=1, max_size=4, unique=True), st.floats(-3, 3), st.floats(-3, 3))
def test_adding_twice_is_adding_the_sum(latents: list[int], a: float, b: float) -> None:
    c = codes()
    twice = s.apply_edits(c, [s.add(latents, a), s.add(latents, b)])
    torch.testing.assert_close(twice, s.apply_edit(c, s.add(latents, a + b)), rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 3), st.sampled_from(sorted(set(EDITS) - {"ablate", "replace", "add where firing"})))
def test_what_lies_between_doses_is_on_a_line(dose: float, name: str) -> None:
    c, ref = codes(), codes(1, seed=9)
    full = s.apply_edit(c, EDITS[name], reference=ref)
    expected = c + dose * (full - c)
    torch.testing.assert_close(s.apply_edit(c, EDITS[name], dose=dose, reference=ref), expected, rtol=1e-9, atol=1e-9)


def test_bad_edits_are_refused_in_words() -> None:
    with pytest.raises(InputError, match=r"at least one latent to edit, but found none"):
        s.add([], 1.0)
    with pytest.raises(InputError, match=r"finite strength, but found nan"):
        s.add([1], float("nan"))
    with pytest.raises(InputError, match=r"low=2\.0, high=1\.0"):
        s.clamp([1], 2.0, 1.0)
    with pytest.raises(InputError, match="at least one target"):
        s.replace([1], [], 1.0)
    with pytest.raises(InputError, match="codes of a reference sample"):
        s.apply_edit(codes(), s.swap([1]))
    with pytest.raises(UnknownNameError, match="'ablate'"):
        s.apply_edit(codes(), Edit("ablat", (1,)))
    with pytest.raises(InputError, match="latents from 0 to 47"):
        s.LatentSteering(tiny_dictionary(), [s.add([48], 1.0)])


def test_edits_survive_a_file_and_only_their_own_dictionary_takes_them(tmp_path: Path) -> None:
    dictionary = tiny_dictionary(means=True)
    wanted = [*EDITS.values(), s.add([3], 1.0, positions="special"), s.ablate([2], positions=(0, 2))]
    s.save_edits(tmp_path / "edits.json", wanted, dictionary)
    assert s.load_edits(tmp_path / "edits.json", tiny_dictionary(means=True)) == wanted
    kept = json.loads((tmp_path / "edits.json").read_text())
    assert kept["dictionary"]["d_sae"] == 48
    with pytest.raises(MismatchError, match="the dictionary the edits were made on"):
        s.load_edits(tmp_path / "edits.json", tiny_dictionary(means=True, seed=1))
    with pytest.raises(MismatchError):
        s.load_edits(tmp_path / "edits.json", tiny_dictionary())  # same weights, no means: codes mean something else
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DamagedError, match="cliplens-edits-1"):
        s.load_edits(tmp_path / "other.json", dictionary)


TABLE = LatentTable(
    {
        "name": np.array(["red", "Red", None, "ring"], dtype=object),
        "name_image": np.array(["blob", None, "dotted", None], dtype=object),
        "name_score": np.array([0.7, 0.9, np.nan, 0.8]),
        "modality": np.array(["CrossD", "ImgD", "TextD", None], dtype=object),
    }
)


def test_latents_by_name_and_by_class() -> None:
    assert s.by_name(TABLE, "red") == [1, 0], "the better scored one first"
    assert s.by_name(TABLE, "dotted") == [2], "a name from images alone will do"
    with pytest.raises(UnknownNameError, match="'ring'"):
        s.by_name(TABLE, "rign")
    assert s.by_class(TABLE, "ImgD") == [1]
    assert s.by_class(TABLE, "all") == [0, 1, 2], "dead latents have no class"
    drawn = s.by_class(TABLE, "random", count=2, seed=3)
    assert len(drawn) == 2
    assert drawn == s.by_class(TABLE, "random", count=2, seed=3)
    with pytest.raises(UnknownNameError):
        s.by_class(TABLE, "ImageD")


def test_label_correlation_is_pearsons() -> None:
    rng = np.random.default_rng(0)
    dense = torch.tensor(rng.random((200, 5)) * (rng.random((200, 5)) < 0.3))
    dense[:, 4] = 0
    label = rng.random(200) < 0.4
    found = s.label_correlation(SparseCodes.from_dense(dense), label)
    for k in range(4):
        assert found[k] == pytest.approx(np.corrcoef(dense[:, k].numpy(), label)[0, 1], abs=1e-12)
    assert np.isnan(found[4])


def test_best_latents_and_typical_levels_of_planted_latents() -> None:
    values = np.arange(90) % 3
    dense = torch.zeros(90, 6)
    for value, latent in ((0, 4), (1, 2)):
        dense[torch.from_numpy(values == value), latent] = 2.0 + value
    sparse = SparseCodes.from_dense(dense)
    assert s.best_latents(sparse, values, 3, least=0.6) == [4, 2, None]
    level = s.typical_level(sparse)
    assert level[4] == 2.0
    assert level[2] == 3.0
    assert np.isnan(level[0])


def test_directions() -> None:
    acts = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    target = torch.tensor([True, True, False])
    assert s.difference_of_means(acts, target).tolist() == [2.0, -2.0]
    drawn = s.random_direction(acts, seed=1)
    torch.testing.assert_close(drawn.norm(dim=-1), acts.norm(dim=-1))
    assert not torch.equal(drawn, s.random_direction(acts, seed=2))
    unit = drawn / drawn.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(unit[0], unit[1])


def test_mean_codes_move_the_latents_whose_means_differ_most() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, 600)
    dense = torch.from_numpy(rng.random((600, 7)) * 0.1)
    for latent, (value, size) in enumerate([(0, 2.0), (1, 1.0), (2, 3.0), (1, 0.5)]):
        dense[torch.from_numpy(values == value), latent] += size
    found = s.MeanCodes(SparseCodes.from_dense(dense), values, 3)
    assert list(found.latents) == [0, 1, 2, 3]
    edits = found.edits(0, 1, most=2)
    assert [e.latents for e in edits] == [(0,), (1,)]
    gap = dense[torch.from_numpy(values == 1)].mean(0) - dense[torch.from_numpy(values == 0)].mean(0)
    np.testing.assert_allclose([e.strength for e in edits], gap[:2], atol=1e-12)
    assert [e.latents for e in found.edits(0, 1, most=None)] == [(0,), (1,), (3,), (2,)]
