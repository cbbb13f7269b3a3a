"""Edges of edits: every option of every constructor, what needs codes, positions, identities."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cliplens import edits as ed
from cliplens.edits import DirectionSteering, Edit, LatentSteering, positions_mask
from cliplens.edits.identity import _described, dictionary_sha256, identity_of
from cliplens.edits.operations import edited_latents, needs_codes, targets_of
from cliplens.errors import InputError, MismatchError
from cliplens.sites import Site
from support.tiny_dictionaries import tiny_dictionary


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ed.add([1], 2.0, where="firing", positions=[0]), ("add", 2.0, {"where": "firing", "positions": (0,)})),
        (
            lambda: ed.set_to([1], 2.0, where="firing", positions="special"),
            ("set", 2.0, {"where": "firing", "positions": "special"}),
        ),
        (lambda: ed.scale([1], 0.5, positions="others"), ("scale", 0.5, {"positions": "others"})),
        (
            lambda: ed.clamp([1], 0.0, 1.0, positions="content"),
            ("clamp", 0.0, {"low": 0.0, "high": 1.0, "positions": "content"}),
        ),
        (lambda: ed.clamp([1], low=0.0), ("clamp", 0.0, {"low": 0.0})),
        (lambda: ed.ablate([1], positions=[2, -1]), ("ablate", 0.0, {"positions": (2, -1)})),
        (lambda: ed.replace([1, 2], [3], 4.0, positions=[1]), ("replace", 4.0, {"positions": (1,), "targets": (3,)})),
        (lambda: ed.swap([1], positions="special"), ("swap", 1.0, {"positions": "special"})),
        (lambda: ed.swap([1], 0.5), ("swap", 0.5, {})),
    ],
)
def test_every_option_of_a_constructor_is_in_its_edit(
    make: Callable[[], Edit], expected: tuple[str, float, dict[str, Any]]
) -> None:
    made = make()
    assert (made.operation, made.strength, dict(made.options)) == expected
    assert made.latents[0] == 1


def test_equal_bounds_are_a_clamp_and_a_latent_is_named_once() -> None:
    assert ed.clamp([3, 3, 4], 0.5, 0.5).latents == (3, 4)
    assert ed.replace([1], [1], 2.0).latents == ()
    assert edited_latents(ed.replace([1, 2], [5, 2], 1.0)) == (1, 5, 2)
    assert targets_of(ed.ablate([1])) == ()
    assert [needs_codes(e) for e in (ed.add([1], 1.0), ed.add([1], 1.0, where="firing"), ed.ablate([1]))] == [
        False,
        True,
        True,
    ]
    dictionary = tiny_dictionary()
    LatentSteering(dictionary, [ed.add([47], 1.0), ed.replace([0], [47], 1.0)])
    with pytest.raises(InputError, match="latents from 0 to 47, but found latent 48"):
        LatentSteering(dictionary, [ed.replace([0], [48], 1.0)])


def test_codes_are_computed_only_where_an_edit_depends_on_them() -> None:
    plain, scaled = tiny_dictionary(), tiny_dictionary(normalize="layer_norm")
    add, firing = [ed.add([1], 1.0)], [ed.add([1], 1.0, where="firing")]
    assert not LatentSteering(plain, add)._needs_codes
    assert LatentSteering(plain, firing)._needs_codes
    assert LatentSteering(plain, [*add, *firing])._needs_codes
    assert LatentSteering(plain, add, use_error_term=False)._needs_codes
    assert LatentSteering(scaled, add)._needs_codes


def test_sites_idleness_and_doses() -> None:
    sites = ("vision.hook_embedding", "text.hook_embedding")
    own = tiny_dictionary(sites=sites)
    steering = LatentSteering(own, [ed.add([1], 1.0)])
    assert tuple(map(str, steering.sites)) == sites
    assert LatentSteering(own, [ed.add([1], 1.0)], at=(Site("text", "x"),)).sites == (Site("text", "x"),)
    assert LatentSteering(tiny_dictionary(), [ed.add([1], 1.0)]).sites == ()
    assert (steering.idle, steering.at_dose(0.0).idle, LatentSteering(own, []).idle) == (False, True, True)
    assert steering.d_in == 32
    acts = torch.randn(2, 3, 32)
    steering(acts, "image")
    assert steering.at_dose(2.0)._by_device is steering._by_device
    assert (steering.at_dose(2.0).dose, steering.dose) == (2.0, 1.0)
    along = DirectionSteering(torch.ones(4), at=(Site("text", "x"),))
    assert (along.d_in, along.sites, along.idle, along.at_dose(0.0).idle) == (4, (Site("text", "x"),), False, True)
    some = DirectionSteering(torch.ones(4), dose=2.0, positions=[1])(torch.zeros(1, 3, 4), "image")
    assert some[0].sum(1).tolist() == [0.0, 8.0, 0.0]


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ("special", [[1, 0, 0, 0], [0, 0, 1, 0]]),
        ("others", [[0, 1, 1, 1], [1, 1, 0, 1]]),
        ("content", [[0, 1, 1, 1], [0, 1, 0, 0]]),
        ([0, 3], [[1, 0, 0, 1]] * 2),
        ([-4, -1], [[1, 0, 0, 1]] * 2),
    ],
)
def test_masks_of_positions(positions: Any, expected: list[list[int]]) -> None:
    assert positions_mask(positions, 2, 4, torch.tensor([0, 2])).int().tolist() == expected


@pytest.mark.parametrize("outside", [4, -5])
def test_positions_outside_are_named(outside: int) -> None:
    assert positions_mask("all", 2, 4, None) is None
    with pytest.raises(MismatchError, match=f"positions from 0 to 3, but found position {outside}"):
        positions_mask([0, outside], 2, 4, None)
    with pytest.raises(MismatchError, match=r"found 4 position\(s\) without one"):
        positions_mask("special", 2, 4, None)


def test_an_identity_covers_every_tensor_and_every_mean() -> None:
    own = tiny_dictionary(means=True, sites=("vision.hook_embedding",))
    told = identity_of(own)
    assert {k: told[k] for k in ("d_in", "d_sae", "model", "sites")} == {
        "d_in": 32,
        "d_sae": 48,
        "model": "tiny",
        "sites": ["vision.hook_embedding"],
    }
    assert (identity_of(tiny_dictionary())["model"], identity_of(tiny_dictionary())["sites"]) == (None, [])
    before = told["sha256"]
    assert before == dictionary_sha256(tiny_dictionary(means=True))
    for name, tensor in own.sae.state_dict().items():
        kept = tensor.flatten()[0].clone()
        tensor.view(-1)[0] += 1
        assert dictionary_sha256(own) != before, name
        tensor.view(-1)[0] = kept
    own.means["text"][0] += 1
    assert dictionary_sha256(own) != before
    assert _described(told) == f"{before[:12]} (32 -> 48, tiny)"
    assert _described({**told, "model": None}) == f"{before[:12]} (32 -> 48)"


def test_whole_numbers_of_any_kind_and_nothing_else() -> None:
    assert Edit.from_json("add", [0, 3], 2, {}) == ed.add([0, 3], 2.0)
    for latents, said in (
        ([-1], "a latent that is a whole number from 0"),
        ([True], "found True"),
        ([1.5], "found 1.5"),
    ):
        with pytest.raises(InputError, match=said):
            Edit.from_json("add", latents, 2, {})
    with pytest.raises(InputError, match="a finite strength, but found inf"):
        ed.add([1], float("inf"))
    with pytest.raises(InputError, match="low, high, or both with low <= high"):
        ed.clamp([1])
