"""Edits: the arithmetic of each operation, against slow obvious versions in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cliplens import edits as ed
from cliplens.edits import Edit
from cliplens.errors import CliplensError, DamagedError, InputError, MismatchError, UnknownNameError
from support.tiny_dictionaries import tiny_dictionary

D_SAE = 12


def codes(rows: int = 5, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, D_SAE, generator=g, dtype=torch.float64).relu()


def obvious(c: Tensor, edit: Edit, dose: float, ref: Tensor) -> Tensor:
    """Compute entry by entry from the table in operations.py."""
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
    "add": ed.add([1, 4], 2.5),
    "add where firing": ed.add([1, 4], 2.5, where="firing"),
    "set": ed.set_to([0, 3], 1.5),
    "scale": ed.scale([2, 5, 7], -0.5),
    "clamp": ed.clamp([1, 2, 3], 0.2, 0.6),
    "clamp above": ed.clamp([1, 2, 3], high=0.1),
    "ablate": ed.ablate([0, 1, 2]),
    "replace": ed.replace([0, 6], [3, 9], 2.0),
    "swap": ed.swap([0, 4, 8], 0.7),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("dose", [0.0, 0.5, 1.0, 2.0])
def test_the_arithmetic_is_the_table(name: str, dose: float) -> None:
    c, ref = codes(), codes(1, seed=9)
    found = ed.apply_edit(c, EDITS[name], dose=dose, reference=ref)
    torch.testing.assert_close(found, obvious(c, EDITS[name], dose, ref), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", EDITS)
def test_dose_0_changes_nothing_and_other_latents_never_change(name: str) -> None:
    c, ref = codes(), codes(1, seed=9)
    before = c.clone()
    assert torch.equal(ed.apply_edit(c, EDITS[name], dose=0.0, reference=ref), c)
    after = ed.apply_edit(c, EDITS[name], reference=ref)
    named = {*EDITS[name].latents, *EDITS[name].options.get("targets", ())}
    others = [k for k in range(D_SAE) if k not in named]
    assert torch.equal(after[:, others], c[:, others])
    assert torch.equal(c, before), "the given codes are left alone"


def test_known_answers() -> None:
    c = torch.tensor([[1.0, 0.0, 2.0, 0.0]])
    assert ed.apply_edit(c, ed.replace([0], [1], 3.0)).tolist() == [[0.0, 3.0, 2.0, 0.0]]
    assert ed.apply_edit(c, ed.replace([0, 2], [1], 3.0)).tolist() == [[0.0, 3.0, 0.0, 0.0]]
    assert ed.apply_edit(c, ed.replace([2], [0, 1], 3.0)).tolist() == [[4.0, 3.0, 0.0, 0.0]]
    assert ed.apply_edit(c, ed.ablate([0, 2]), dose=5.0).tolist() == [[0.0, 0.0, 0.0, 0.0]]
    ref = torch.tensor([[0.0, 4.0, 0.0, 0.0]])
    assert ed.apply_edit(c, ed.swap([0, 1]), reference=ref).tolist() == [[0.0, 4.0, 2.0, 0.0]]
    assert ed.apply_edit(c, ed.add([1, 2], 1.0, where="firing")).tolist() == [[1.0, 0.0, 3.0, 0.0]]


def test_edits_are_done_in_order() -> None:
    c = codes()
    both = ed.apply_edits(c, [ed.ablate([1]), ed.add([1], 2.0)])
    assert torch.equal(both[:, 1], torch.full((5,), 2.0, dtype=torch.float64))
    other = ed.apply_edits(c, [ed.add([1], 2.0), ed.ablate([1])])
    assert torch.equal(other[:, 1], torch.zeros(5, dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, D_SAE - 1), min_size=1, max_size=4, unique=True), st.floats(-3, 3), st.floats(-3, 3))
def test_adding_twice_is_adding_the_sum(latents: list[int], a: float, b: float) -> None:
    c = codes()
    twice = ed.apply_edits(c, [ed.add(latents, a), ed.add(latents, b)])
    torch.testing.assert_close(twice, ed.apply_edit(c, ed.add(latents, a + b)), rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 3), st.sampled_from(sorted(set(EDITS) - {"ablate", "replace", "add where firing"})))
def test_what_lies_between_doses_is_on_a_line(dose: float, name: str) -> None:
    c, ref = codes(), codes(1, seed=9)
    full = ed.apply_edit(c, EDITS[name], reference=ref)
    expected = c + dose * (full - c)
    torch.testing.assert_close(ed.apply_edit(c, EDITS[name], dose=dose, reference=ref), expected, rtol=1e-9, atol=1e-9)


def test_bad_edits_are_refused_in_words() -> None:
    with pytest.raises(InputError, match=r"at least one latent to edit, but found none"):
        ed.add([], 1.0)
    with pytest.raises(InputError, match=r"finite strength, but found nan"):
        ed.add([1], float("nan"))
    with pytest.raises(InputError, match=r"low=2\.0, high=1\.0"):
        ed.clamp([1], 2.0, 1.0)
    with pytest.raises(InputError, match="at least one target"):
        ed.replace([1], [], 1.0)
    with pytest.raises(InputError, match="codes of a reference sample"):
        ed.apply_edit(codes(), ed.swap([1]))
    with pytest.raises(UnknownNameError, match="'ablate'"):
        ed.apply_edit(codes(), Edit("ablat", (1,)))
    with pytest.raises(InputError, match="latents from 0 to 47"):
        ed.LatentSteering(tiny_dictionary(), [ed.add([48], 1.0)])


def test_edits_survive_a_file_and_only_their_own_dictionary_takes_them(tmp_path: Path) -> None:
    dictionary = tiny_dictionary(means=True)
    wanted = [*EDITS.values(), ed.add([3], 1.0, positions="special"), ed.ablate([2], positions=(0, 2))]
    ed.save_edits(tmp_path / "edits.json", wanted, dictionary)
    assert ed.load_edits(tmp_path / "edits.json", tiny_dictionary(means=True)) == wanted
    kept = json.loads((tmp_path / "edits.json").read_text())
    assert kept["dictionary"]["d_sae"] == 48
    with pytest.raises(MismatchError, match="the dictionary that the edits were made for"):
        ed.load_edits(tmp_path / "edits.json", tiny_dictionary(means=True, seed=1))
    with pytest.raises(MismatchError):
        ed.load_edits(tmp_path / "edits.json", tiny_dictionary())  # same weights, no means: codes mean something else
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DamagedError, match="cliplens-edits-1"):
        ed.load_edits(tmp_path / "other.json", dictionary)


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "clamp", "options": {"low": 3, "high": 1}},
        {"operation": "clamp", "options": {}},
        {"operation": "replace", "options": {"targets": []}},
        {"operation": "x"},
        {"latents": []},
        {"latents": None},
        {"latents": "12"},
        {"latents": {"1": 2}},
        {"latents": [True]},
        {"latents": ["3"]},
        {"latents": [3.5]},
        {"latents": [-1]},
        {"latents": [48]},
        {"latents": [[3]]},
        {"strength": None},
        {"strength": "4"},
        {"strength": True},
        {"options": None},
        {"options": [1]},
        {"options": {"bogus": 1}},
        {"options": {"low": 1}},
        {"options": {"positions": "zzz"}},
        {"options": {"positions": [0.5]}},
        {"options": {"positions": []}},
        {"options": {"positions": 3}},
        {"options": {"where": "somewhere"}},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_saved_edit_that_was_altered_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path, dictionary = tmp_path / "edits.json", tiny_dictionary()
    ed.save_edits(path, [ed.add([3], 4.0)], dictionary)
    content = json.loads(path.read_text())
    content["edits"][0].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(CliplensError, match=r"Expected .+, but found .+\. Fix: .+"):
        ed.load_edits(path, dictionary)


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"format": "cliplens-edits-1"}', "{", '"x"'])
def test_a_file_that_holds_no_edits_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "edits.json").write_text(content)
    with pytest.raises(DamagedError):
        ed.load_edits(tmp_path / "edits.json", tiny_dictionary())


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_that_is_not_finite_is_refused(strength: float) -> None:
    with pytest.raises(InputError, match="finite strength"):
        Edit("add", (3,), strength)


def test_numpy_numbers_are_numbers() -> None:
    edit = ed.add(np.array([3, 4]), float(np.float32(2.0)))
    assert edit == Edit("add", (3, 4), 2.0)
    assert all(type(k) is int for k in edit.latents)
