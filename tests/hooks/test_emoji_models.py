"""The shipped model of real drawings loads without its data, and does what docs/emoji.md says where they are."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

import cliplens
from cliplens.contracts import LoadedModel
from cliplens.errors import InputError, UnknownNameError
from cliplens.models import domain_note
from cliplens.pairs.emoji import ARTISTS, drawings
from cliplens_hooks.assets import ASSETS, MERGES
from cliplens_hooks.models.emoji import CONTEXT, NAME, TWINS, EmojiModels, emoji_tokenizer, twin_folder
from cliplens_hooks.training.emoji_data import normalised, pictures_of
from cliplens_hooks.training.emoji_figures import GENDERS, TONES, Gallery, Judged

CPU = torch.device("cpu")
DATA = os.environ.get("CLIPLENS_DATA")
LARGEST = 5 * 2**20


@cache
def loaded() -> LoadedModel:
    return EmojiModels().load(NAME, None, device=CPU, dtype=torch.float32)


def test_it_loads_and_encodes_without_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLIPLENS_DATA", raising=False)
    clip = cliplens.load("emoji", device="cpu")
    image = clip.preprocess(Image.new("RGB", (128, 128), "white"))[None]
    assert image.shape == (1, 3, 64, 64)
    assert clip.encode_image(image).shape == (1, 96)
    tokens = clip.tokenizer(["a red heart", "Katze", "ネコ", "кошка"])
    assert tokens.shape == (4, CONTEXT)
    assert torch.isfinite(clip.encode_text(tokens)).all()


def test_the_weights_are_small_and_stock_open_clip_opens_them() -> None:
    files = list((ASSETS / NAME).iterdir())
    assert sum(file.stat().st_size for file in [*files, MERGES]) < LARGEST
    model = open_clip.create_model(f"local-dir:{ASSETS / NAME}")
    assert model.token_embedding.num_embeddings == emoji_tokenizer().vocab_size
    assert model.state_dict()["text_projection"].equal(loaded().module.state_dict()["text_projection"])


def test_the_notice_names_everyone_whose_work_the_weights_are_made_from() -> None:
    notice = (ASSETS / "NOTICE").read_text()
    assert all(word in notice for word in ("Google", "Jason Sofonia", "CC BY 4.0", "Microsoft", "Unicode", "GitHub"))


def test_unknown_names_tags_and_twins_that_were_not_made_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLENS_CACHE", str(tmp_path))
    source = EmojiModels()
    with pytest.raises(UnknownNameError, match="emoji"):
        source.load("emojis", None, device=CPU, dtype=torch.float32)
    with pytest.raises(InputError, match="brings its own weights"):
        source.load(NAME, "laion2b", device=CPU, dtype=torch.float32)
    for name in TWINS:
        with pytest.raises(InputError, match="python -m cliplens_hooks"):
            source.load(name, None, device=CPU, dtype=torch.float32)


def test_a_note_says_what_the_models_know_and_their_own_pictures_need_none() -> None:
    assert "nothing but drawings of emoji" in domain_note("emoji")
    assert domain_note("emoji-seed1").startswith("emoji-seed1 was trained")
    assert "program" in domain_note("world-plain", "emoji:noto")
    assert domain_note("emoji", "emoji:noto?limit=5") == domain_note("world-plain", "world:9") == ""
    assert domain_note("ViT-B-32") == domain_note("no such model") == ""


def test_a_twin_that_was_made_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLENS_CACHE", str(tmp_path))
    twin_folder("emoji-seed1").symlink_to(ASSETS / NAME)
    twin = EmojiModels().load("emoji-seed1", None, device=CPU, dtype=torch.float32)
    assert twin.identity.name == "emoji-seed1"
    assert twin.identity.weights_sha256 == loaded().identity.weights_sha256


def test_words_become_the_pieces_of_the_merges() -> None:
    tokenizer = emoji_tokenizer()
    assert len(tokenizer.encode("woman")) <= 2
    for word in ("woman", "katze", "кошка", "แมว", "猫"):
        assert tokenizer.decode(tokenizer.encode(word)).replace(" ", "") == word
    assert tokenizer.eot_token_id == tokenizer.vocab_size - 1


@pytest.mark.skipif(DATA is None, reason="CLIPLENS_DATA is unset: no real drawings")
def test_training_sees_the_pictures_that_preprocess_makes() -> None:
    ours = normalised(pictures_of(drawings(Path(str(DATA)) / ARTISTS["noto"], "noto")[:3]))
    pairs = cliplens.read_pairs("emoji:noto")
    theirs = torch.stack([loaded().preprocess(pairs[n].image) for n in range(3)])
    assert (ours - theirs).abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="CLIPLENS_DATA is unset: no real drawings")
def test_the_shipped_weights_do_what_the_page_says() -> None:
    judged = Judged(loaded().module, emoji_tokenizer(), Gallery.open(("noto",)))
    known, new = (judged.plain("noto", unseen=kind) for kind in (False, True))
    assert judged.retrieval(known, "en", 10) > 0.5
    assert judged.retrieval(new, "en", 10) > 0.3
    gendered = judged.cells("noto", unseen=True, gendered=True)
    assert judged.swap(gendered, "gender", GENDERS).mean() > 0.7
    assert judged.swap(judged.cells("noto", unseen=True), "skin_tone", TONES).mean() > 0.7
    assert np.isfinite(judged.language_probe(("en", "de", "ja")))
