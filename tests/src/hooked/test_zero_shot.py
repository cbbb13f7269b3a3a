"""Zero-shot classification by class names, against the arithmetic written out."""

import pytest
import torch
from torch.nn import functional as F

from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from support.tiny import tiny_images


@torch.no_grad()
def test_the_class_is_that_of_the_nearest_mean_embedding(clip: HookedCLIP) -> None:
    classes, templates = ["cat", "red ring", "x"], ["a {}.", "the {} again"]
    images = tiny_images()
    found = clip.zero_shot(images, classes, templates=templates)
    assert clip.tokenizer is not None
    rows = [
        F.normalize(clip.encode_text(clip.tokenizer([t.replace("{}", c) for t in templates])), dim=-1).mean(0)
        for c in classes
    ]
    prototypes = F.normalize(torch.stack(rows), dim=-1)
    torch.testing.assert_close(clip.class_prototypes(classes, templates=templates), prototypes)
    cosine = F.normalize(clip.encode_image(images), dim=-1) @ prototypes.T
    assert torch.equal(found, cosine.argmax(-1))


def test_missing_class_names_are_an_error(clip: HookedCLIP) -> None:
    for classes, templates, words in (
        ([], ["a {}"], "class names"),
        (["cat"], [], "templates"),
        (["cat"], ["a cat"], r"templates with \{\}"),
    ):
        with pytest.raises(InputError, match=words):
            clip.class_prototypes(classes, templates=templates)
