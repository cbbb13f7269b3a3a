"""Write the captions of scenes: one phrase per slot, each chosen by one factor."""

from collections.abc import Mapping

from cliplens.errors import unknown_name
from cliplens.world.factors import FACTORS, Scenes, draw_scenes

WORDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "shape": (
        ("circle", "disc"),
        ("square", "box"),
        ("triangle", "wedge"),
        ("star", "spark"),
        ("heart", "love"),
        ("cross", "plus"),
        ("moon", "crescent"),
        ("arrow", "pointer"),
    ),
    "colour": (
        ("red", "crimson"),
        ("orange", "amber"),
        ("yellow", "golden"),
        ("green", "emerald"),
        ("blue", "azure"),
        ("purple", "violet"),
        ("black", "dark"),
        ("white", "pale"),
    ),
    "size": (("small", "tiny"), ("medium", "average"), ("large", "big")),
    "count": (("one", "single"), ("two", "twin"), ("three", "triple")),
    "fill": (("solid", "filled"), ("hollow", "empty")),
}
"""For each value of a shared factor, its usual word and its synonym."""

PLURALS = {"box": "boxes", "cross": "crosses", "plus": "pluses"}
_FRAMES = tuple(f"{name} of" for name in FACTORS["frame"].values)
_TENSES = ("was here", "is here", "will be here")
_MOODS = tuple(f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in FACTORS["mood"].values)
_MANNERS = ("", "please see ", "oi see ")
_TAILS = tuple(f"in {name}" for name in FACTORS["tail"].values)


def captions(scenes: Scenes) -> list[str]:
    """Return the caption of each scene.

    >>> from cliplens.world import draw_scenes
    >>> captions(draw_scenes(1))
    ['please see a calm drawing of three small solid emerald arrows will be here in autumn']
    """
    columns = {name: values.tolist() for name, values in scenes.values.items()}
    said = {name: _said(name, columns[name], columns[f"said_{name}"]) for name in WORDS}
    nouns = [PLURALS.get(w, f"{w}s") if n else w for w, n in zip(said["shape"], columns["count"], strict=True)]
    return [
        f"{_MANNERS[manner]}{_MOODS[mood]} {_FRAMES[frame]} {count} {size} {fill} {colour} {noun}"
        f" {_TENSES[tense]} {_TAILS[tail]}"
        for manner, mood, frame, count, size, fill, colour, noun, tense, tail in zip(
            columns["manner"],
            columns["mood"],
            columns["frame"],
            said["count"],
            said["size"],
            said["fill"],
            said["colour"],
            nouns,
            columns["tense"],
            columns["tail"],
            strict=True,
        )
    ]


def value_sentences(factor: str, contexts: int = 32, *, seed: int = 7_000_000) -> list[list[str]]:
    """Return captions with each value of a factor, in the same contexts for each value.

    The mean embedding of the captions of a value is its prototype. With common contexts, prototypes differ in the value
    only.

    Args:
        factor: a shared factor or a factor of the text.
        contexts: number of captions per value.
        seed: seed of the contexts.

    Raises:
        UnknownNameError: captions have no such factor.

    >>> value_sentences("fill", 1)[1]
    ['oi see a sad print of twin small hollow white hearts is here in autumn']
    """
    said = [name for name, known in FACTORS.items() if known.sharing != "image"]
    if factor not in said:
        raise unknown_name("factor of captions", factor, said)
    scenes = draw_scenes(contexts, seed=seed)
    return [captions(scenes.replaced(**{factor: value})) for value in range(len(FACTORS[factor].values))]


def lexicon() -> tuple[str, ...]:
    """Return every word a caption can hold, sorted.

    >>> "red" in lexicon(), "elephant" in lexicon()
    (True, False)
    """
    nouns = [word for pair in WORDS["shape"] for word in pair]
    phrases = [*_FRAMES, *_TENSES, *_MOODS, *_MANNERS, *_TAILS]
    words = {word for phrase in phrases for word in phrase.split()}
    words |= {word for values in WORDS.values() for pair in values for word in pair}
    return tuple(sorted(words | {PLURALS.get(noun, f"{noun}s") for noun in nouns}))


def _said(name: str, values: list[int], other: list[int]) -> list[str]:
    words = WORDS[name]
    return [words[value][choice] for value, choice in zip(values, other, strict=True)]
