import pytest

from cliplens.errors import InputError
from cliplens.sites import Site, as_site, as_sites, sites_of


@pytest.mark.parametrize(
    "name", ["vision.blocks.9.hook_resid_post", "text.hook_embedding", "vision.ln_final.hook_scale"]
)
def test_a_site_is_parsed_from_its_name(name: str) -> None:
    assert str(Site.parse(name)) == name


def test_layer_and_where_to_stop() -> None:
    inside, outside = Site.parse("vision.blocks.9.attn.hook_z"), Site.parse("text.hook_embedding")
    assert (inside.layer, inside.stop_at_layer) == (9, 10)
    assert (outside.layer, outside.stop_at_layer) == (None, None)


def test_a_site_has_the_modality_of_its_tower() -> None:
    assert (Site("vision", "hook_embedding").modality, Site("text", "hook_embedding").modality) == ("image", "text")


@pytest.mark.parametrize("name", ["blocks.0.hook_resid_pre", "vision.", "vision", ""])
def test_names_without_a_tower_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"Expected a site such as 'vision\.blocks\.9\.hook_resid_post'"):
        Site.parse(name)


def test_a_bare_hook_means_both_towers_and_a_site_means_itself() -> None:
    assert sites_of("hook_embedding") == (Site("vision", "hook_embedding"), Site("text", "hook_embedding"))
    assert sites_of("hook_embedding", "text") == (Site("text", "hook_embedding"),)
    assert sites_of("vision.hook_embedding") == (Site("vision", "hook_embedding"),)


def test_a_site_is_given_as_itself_or_by_name() -> None:
    site = Site("vision", "hook_embedding")
    assert as_site(site) is site
    assert as_site("vision.hook_embedding") == site
    assert as_sites("vision.hook_embedding") == (site,)
    assert as_sites([site, "vision.hook_embedding", "text.hook_embedding"]) == (site, Site("text", "hook_embedding"))
    assert sites_of(site) == (site,)
