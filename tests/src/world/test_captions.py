import pytest

from cliplens.world import FACTORS, IMAGE_ONLY, SHARED, TEXT_ONLY, captions, draw_scenes, lexicon


@pytest.mark.parametrize("name", [*IMAGE_ONLY, "tilt", "field"])
def test_image_factors_do_not_change_captions(name: str) -> None:
    scenes = draw_scenes(50)
    assert captions(scenes) == captions(scenes.replaced(**{name: 0}))


@pytest.mark.parametrize("name", [*SHARED, *TEXT_ONLY])
def test_every_value_of_a_text_factor_changes_the_caption(name: str) -> None:
    scenes = draw_scenes(50)
    by_value = [captions(scenes.replaced(**{name: v})) for v in range(len(FACTORS[name].values))]
    assert all(len(set(said)) == len(by_value) for said in zip(*by_value, strict=True))


def test_synonyms_are_other_words_for_the_same() -> None:
    scenes = draw_scenes(1).replaced(shape=0, colour=0, size=0, count=0, fill=0)
    usual = captions(scenes.replaced(said_shape=0, said_colour=0, said_size=0, said_count=0, said_fill=0))[0]
    other = captions(scenes.replaced(said_shape=1, said_colour=1, said_size=1, said_count=1, said_fill=1))[0]
    assert "one small solid red circle" in usual
    assert "single tiny filled crimson disc" in other


def test_several_things_are_named_in_the_plural() -> None:
    scenes = draw_scenes(1).replaced(said_shape=1, said_count=0, count=2)
    assert " boxes " in captions(scenes.replaced(shape=1))[0]
    assert " pluses " in captions(scenes.replaced(shape=5))[0]
    assert " wedge " in captions(scenes.replaced(shape=2, count=0))[0]


def test_no_scene_needs_a_word_outside_the_lexicon() -> None:
    said = {word for text in captions(draw_scenes(5000)) for word in text.split()}
    assert said == set(lexicon())
