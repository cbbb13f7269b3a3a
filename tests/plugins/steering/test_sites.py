"""The table of sites in docs/steering.md is what edits do on real classes, and no edit is silently without effect."""

import warnings

import pytest

pytest.importorskip("diffusers", reason="steering pipelines needs the extra [diffusion]")

from support.steerable import ALL, IN_BLOCK, Steerable, row_of
from support.steering_table import PAGE, table_in

CHEAP = (
    "KandinskyV22PriorPipeline",
    "LlavaForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "PixArtAlphaPipeline",
)
QUICK = [one for one in ALL if one.name in CHEAP]


@pytest.mark.parametrize("one", QUICK, ids=[one.name for one in QUICK])
def test_sites_at_both_ends_of_a_block_do_as_the_table_says(one: Steerable) -> None:
    _compare(one, ("hook_resid_pre", "hook_resid_post"))


@pytest.mark.slow
@pytest.mark.parametrize("one", ALL, ids=[one.name for one in ALL])
def test_every_site_has_an_effect_or_is_refused_as_the_table_says(one: Steerable) -> None:
    _compare(one, IN_BLOCK)


def _compare(one: Steerable, in_block: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = row_of(one, in_block)
    assert not any("silent" in row for row in rows), rows
    assert [row for row in rows if row not in table_in(PAGE.read_text(encoding="utf-8"))] == []


def test_every_class_of_the_table_is_tried() -> None:
    rows = table_in(PAGE.read_text(encoding="utf-8")).splitlines()[2:]
    assert list(dict.fromkeys(row.split("`")[1] for row in rows)) == [one.name for one in ALL]
    assert len(ALL) >= 25
