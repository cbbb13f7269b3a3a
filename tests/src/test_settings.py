import pytest

from cliplens.errors import InputError
from cliplens.settings import Settings
from cliplens.sites import Site


def test_a_bare_hook_is_read_in_both_towers() -> None:
    settings = Settings(pairs="p.csv")
    assert settings.sites == (Site("vision", "hook_embedding"), Site("text", "hook_embedding"))
    assert settings.modalities == "both"


def test_tower_narrows_a_bare_hook() -> None:
    assert Settings(pairs="p.csv", tower="text").sites == (Site("text", "hook_embedding"),)
    assert Settings(pairs="p.csv", tower="vision").modalities == "image"


def test_a_site_decides_the_tower() -> None:
    settings = Settings(pairs="p.csv", hook="vision.blocks.1.hook_resid_post")
    assert settings.sites == (Site("vision", "blocks.1.hook_resid_post"),)
    assert settings.modalities == "image"


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_held_out_must_leave_both_parts(fraction: float) -> None:
    with pytest.raises(InputError, match="--held-out as a fraction above 0 and below 1"):
        Settings(pairs="p.csv", held_out=fraction)


def test_every_setting_has_a_help_text() -> None:
    from dataclasses import fields

    assert all(f.metadata["help"].endswith(".") and f.metadata["group"] for f in fields(Settings))
