"""Where a latent of a run fires in a picture, and where it brings the picture nearer to a caption."""

from typing import Any

import torch
from PIL import Image

from cliplens.analysis import drawn, grid_of, latent_map, words_of
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.pictures import as_model_sees


def explain_latent(
    clip: HookedCLIP, dictionary: Any, latent: int, picture: Image.Image, caption: str, *, effect: bool = True
) -> Image.Image:
    """Return a picture and its caption, shaded by where a latent acts.

    Args:
        clip: the model of the dictionary.
        dictionary: a `Dictionary` of a residual hook of one tower or of both.
        latent: the number of the latent.
        picture: the image.
        caption: the caption.
        effect: shade by the effect on the similarity of the two (see `cliplens.analysis.latent_map`); False shades by
            the activation, which does not depend on the other of the two.

    Raises:
        InputError: the dictionary reads one position per input, or belongs to another model.
    """
    sides = {site.partition(".")[0] for site in getattr(dictionary.provenance, "sites", ())}
    vision, text = clip.vision, clip.text
    if vision is None or text is None or not sides:
        raise InputError(
            expected="a model with both towers, and a dictionary that knows its sites",
            found="one tower only" if sides else "a dictionary without sites",
            fix="call cliplens.analysis.latent_map with hook=",
        )
    images, tokens = vision.checked(picture), text.checked(caption)
    with torch.no_grad():
        seen, read = clip.encode_image(images, normalize=True), clip.encode_text(tokens, normalize=True)
    shown = as_model_sees(picture, clip.identity.preprocess, vision.cfg.image_size)
    grid = torch.zeros(1, 1)
    if "vision" in sides:
        found = latent_map(vision, images, dictionary, [latent], read if effect else None)
        grid = grid_of(vision, found[0, 0])
    words: tuple[str, ...] = ()
    values = None
    if "text" in sides:
        found = latent_map(text, tokens, dictionary, [latent], seen if effect else None)
        words, values = words_of(text, tokens, found[0, 0])
    return drawn(shown, grid.cpu().double().numpy(), words, values)
