from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from sae_lens.saes.transcoder import Transcoder, TranscoderConfig
from sae_lens.training.sae_trainer import SAETrainer

from cliplens.errors import DamagedError, InputError, MismatchError, UnsafeFileError
from cliplens.records import ModelIdentity, PairedActs
from cliplens.sae import Dictionary, dictionary_config, verify_folder
from cliplens.sites import Site
from support.dictionaries import D_IN, ROWS, STOCK, dictionary_of, sae_of
from support.streams import IDENTITY, Provider, paired, provenance


def clip_like(identity: ModelIdentity = IDENTITY, width: int = D_IN) -> SimpleNamespace:
    """All `check` asks of a model."""
    return SimpleNamespace(identity=identity, width=lambda site: width)


@pytest.mark.parametrize("architecture", STOCK)
def test_a_saved_dictionary_is_loaded_unchanged(architecture: str, tmp_path: Path) -> None:
    dictionary, acts = dictionary_of(architecture), paired(ROWS, D_IN)
    loaded = Dictionary.load(dictionary.save(tmp_path / "sae"))
    assert loaded.provenance == dictionary.provenance
    for modality in ("image", "text"):
        assert torch.equal(loaded.means[modality], dictionary.means[modality])
        assert torch.equal(loaded.encode(acts).of(modality).dense(), dictionary.encode(acts).of(modality).dense())


def test_metadata_contain_the_origin(tmp_path: Path) -> None:
    dictionary_of("topk").save(tmp_path / "sae")
    metadata = SAE.load_from_disk(tmp_path / "sae").cfg.metadata
    assert (metadata.model_name, metadata.hook_name, metadata.clip_tower) == ("tiny", "hook_embedding", "both")
    assert (metadata.weights_sha256, metadata.preprocess, metadata.token) == ("a" * 64, "resize 48, bicubic", "auto")
    assert metadata.centring == "reads activations less their modality's mean (means.safetensors)"
    image = SAE.load_from_disk(tmp_path / "sae" / "image").cfg.metadata
    assert (image.clip_tower, image.hook_name) == ("vision", "hook_embedding")
    assert image.centring == "reads raw activations, the image mean is folded into the weights"


def test_saving_does_not_alter_the_dictionary_held(tmp_path: Path) -> None:
    dictionary = dictionary_of("topk")
    before = dictionary.sae.cfg.to_dict()
    dictionary.save(tmp_path / "sae")
    assert dictionary.sae.cfg.to_dict() == before


def test_saving_again_replaces_all_of_it(tmp_path: Path) -> None:
    dictionary_of("topk").save(tmp_path / "sae")
    Dictionary(sae_of("standard")).save(tmp_path / "sae")
    assert sorted(p.name for p in (tmp_path / "sae").iterdir()) == [
        "cfg.json",
        "sae_weights.safetensors",
        "sha256.json",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["sae"]


def test_a_failed_save_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = dictionary_of("topk")
    dictionary.save(tmp_path / "sae")

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("cliplens.sae.folder.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        dictionary.save(tmp_path / "sae")
    assert Dictionary.load(tmp_path / "sae").means is not None
    assert [p.name for p in tmp_path.iterdir()] == ["sae"]


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"contains only a dictionary to replace.*holds thesis.tex"):
        dictionary_of("topk").save(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_plain_saelens_folder_opens_without_means(tmp_path: Path) -> None:
    sae, acts = sae_of("jumprelu"), paired(ROWS, D_IN)
    sae.save_model(tmp_path)
    dictionary = Dictionary.load(tmp_path)
    assert dictionary.means is None
    assert dictionary.provenance is None
    assert torch.equal(dictionary.encode(acts).image.dense(), sae.encode(acts.image))
    assert torch.equal(dictionary.centre(acts).image, acts.image)


def test_the_copy_for_one_modality_is_not_taken_for_the_dictionary(tmp_path: Path) -> None:
    dictionary_of("topk").save(tmp_path / "sae")
    with pytest.raises(InputError, match=r"its copy that reads raw image activations. Fix: pass .*sae"):
        Dictionary.load(tmp_path / "sae" / "image")


@pytest.mark.parametrize("name", ["ae.pt", "weights.pth", "model.ckpt", "sae.pkl", "pytorch_model.bin"])
def test_pickles_are_refused(name: str, tmp_path: Path) -> None:
    torch.save({"W_dec": torch.zeros(2, 2)}, tmp_path / name)
    with pytest.raises(UnsafeFileError, match=f"Expected a dictionary as tensors.*found a pickle, {name}"):
        Dictionary.load(tmp_path)
    with pytest.raises(UnsafeFileError, match=f"found a pickle, {name}"):
        Dictionary.load(tmp_path / name)


def test_an_empty_folder_is_no_dictionary(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Expected a folder with cfg.json and sae_weights.safetensors"):
        Dictionary.load(tmp_path)


def test_cut_weights_are_damaged(tmp_path: Path) -> None:
    dictionary_of("topk").save(tmp_path / "sae")
    weights = tmp_path / "sae" / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DamagedError, match="as it was written, with hash"):
        Dictionary.load(tmp_path / "sae")
    (tmp_path / "sae" / "sha256.json").unlink()
    with pytest.raises(DamagedError, match="Expected a dictionary in SAELens' format"):
        Dictionary.load(tmp_path / "sae")


def test_one_modality_alone(tmp_path: Path) -> None:
    acts = paired(ROWS, D_IN)
    only = PairedActs(acts.ids, acts.image, None)
    made = replace(provenance(D_IN), sites=("vision.hook_embedding",))
    dictionary = Dictionary(sae_of("topk"), {"image": acts.image.mean(0)}, made)
    batch = dictionary.batch(only)
    assert batch.codes.text is None
    assert batch.reconstruction.text is None
    dictionary.save(tmp_path / "sae")
    assert (tmp_path / "sae" / "image").is_dir()
    assert not (tmp_path / "sae" / "text").exists()


def test_many_rows_are_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary, acts = dictionary_of("topk"), paired(ROWS, D_IN)
    whole = dictionary.encode(acts)
    monkeypatch.setattr("cliplens.sae.encoding._DENSE_LIMIT", 60 * 7)
    parts = dictionary.encode(acts)
    torch.testing.assert_close(parts.image.dense(), whole.image.dense(), atol=1e-6, rtol=0)
    assert torch.equal(parts.image.rows, parts.image.rows.sort().values)


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("normalised", ["none", "layer_norm"])
@pytest.mark.filterwarnings("error")
def test_topk_codes_are_those_of_stock_saelens_bit_for_bit(normalised: str, rescaled: bool) -> None:
    """Also where fewer than k pre-activations are positive, so that a code holds zeros."""
    torch.manual_seed(0)
    cfg = TopKSAEConfig(d_in=8, d_sae=12, k=9, rescale_acts_by_decoder_norm=rescaled, normalize_activations=normalised)
    sae, acts = TopKSAE(cfg), torch.randn(50, 8)
    with torch.no_grad():
        stock, rebuilt = sae.encode(acts), sae(acts)
    batch = Dictionary(sae).batch(PairedActs(tuple(map(str, range(50))), acts, None))
    found = batch.codes.image
    assert torch.equal(found.dense(), stock)
    assert torch.equal(torch.stack([found.rows, found.latents], 1), stock.nonzero())
    assert 0 < len(found.rows) < 9 * 50
    torch.testing.assert_close(batch.reconstruction.image, rebuilt)


def test_codes_of_no_rows() -> None:
    dictionary = dictionary_of("topk")
    none = PairedActs((), torch.zeros(0, D_IN), torch.zeros(0, D_IN))
    assert len(dictionary.encode(none)) == 0
    assert dictionary.decode(dictionary.encode(none)).image.shape == (0, D_IN)


def test_a_dictionary_fits_its_own_model_and_site() -> None:
    dictionary_of("topk").check(clip_like(), [Site("vision", "hook_embedding"), Site("text", "hook_embedding")])
    Dictionary(sae_of("topk")).check(clip_like(replace(IDENTITY, weights_sha256="0" * 64)), [Site("text", "any")])


VISION = Site("vision", "hook_embedding")


@pytest.mark.parametrize(
    ("clip", "site", "message"),
    [
        (
            clip_like(replace(IDENTITY, name="other", weights_sha256="0" * 64)),
            VISION,
            r"Expected the model the dictionary was trained on, tiny \(weights aaaaaaaaaaaa\), "
            r"but found other \(weights 0000",
        ),
        (
            clip_like(replace(IDENTITY, preprocess="resize 224", preprocess_sha256="0")),
            VISION,
            "the preprocess the dictionary was trained on, resize 48, bicubic, but found resize 224",
        ),
        (
            clip_like(replace(IDENTITY, tokenizer_sha256="0" * 64)),
            Site("text", "hook_embedding"),
            "the tokenizer the dictionary was trained on, cccccccccccc, but found 000000000000",
        ),
        (
            clip_like(),
            Site("vision", "blocks.1.hook_resid_post"),
            "the hook the dictionary was trained on, vision.hook_embedding and text.hook_embedding,"
            " but found vision.blocks.1.hook_resid_post",
        ),
        (
            clip_like(width=25),
            VISION,
            f"a site of width {D_IN}, the dictionary's d_in, but found vision.hook_embedding of",
        ),
    ],
)
def test_another_model_or_site_is_an_error_that_names_both(clip: SimpleNamespace, site: Site, message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        dictionary_of("topk").check(clip, [site])


def test_another_token_choice_is_refused() -> None:
    with pytest.raises(
        MismatchError, match=r"the token choice the dictionary was trained on, 'auto', but found 'mean'"
    ):
        dictionary_of("topk").check(clip_like(), [VISION], token="mean")


def test_activations_of_another_width_are_refused() -> None:
    with pytest.raises(MismatchError, match=f"width, d_in={D_IN}.*found activations of width 25"):
        dictionary_of("topk").encode(PairedActs(("a",), torch.zeros(1, 25), None))


def test_a_transcoder_is_no_dictionary() -> None:
    with pytest.raises(InputError, match="found a transcoder, Transcoder, from width 4 to 5"):
        Dictionary(Transcoder(TranscoderConfig(d_in=4, d_sae=8, d_out=5, apply_b_dec_to_input=False)))


def test_hook_z_dictionaries_read_flat_rows_and_splice_by_heads() -> None:
    sae = sae_of("topk")
    sae.cfg.metadata.hook_name = "blocks.0.attn.hook_z"
    sae.cfg.reshape_activations = "hook_z"
    dictionary, acts = Dictionary(sae, {"image": torch.ones(D_IN)}), paired(ROWS, D_IN)
    codes = dictionary.encode(PairedActs(acts.ids, acts.image, None)).image.dense()
    spliced = dictionary.folded("image").encode(acts.image.reshape(ROWS, 1, 4, D_IN // 4))
    torch.testing.assert_close(spliced[:, 0], codes, atol=1e-6, rtol=0)


@pytest.mark.parametrize("architecture", STOCK)
def test_a_training_sae_is_converted_for_inference(architecture: str, tmp_path: Path) -> None:
    acts, data = paired(ROWS, D_IN), Provider(paired(ROWS, D_IN), 64)
    sae = get_sae_training_class(architecture)[0](dictionary_config(architecture, D_IN, 2 * D_IN, k=4))
    settings = SAETrainerConfig(640, 64, lr_end=0.0, n_batches_for_norm_estimate=5)
    trained = SAETrainer(settings, sae, data).fit()
    dictionary = Dictionary(trained, data.means, data.provenance)
    dictionary.save(tmp_path / "ours")
    trained.save_inference_model(tmp_path / "stock")
    stock = SAE.load_from_disk(tmp_path / "stock")
    ours = SAE.load_from_disk(tmp_path / "ours")
    centred = dictionary.centre(acts).image
    assert torch.equal(ours.encode(centred), stock.encode(centred))
    assert ours.cfg.metadata.model_name == "tiny"
    assert torch.equal(
        SAE.load_from_disk(tmp_path / "ours" / "text").encode(acts.text), dictionary.encode(acts).text.dense()
    )


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors", "means.safetensors"])
@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_damage_to_any_file_is_noticed(name: str, damage: object, tmp_path: Path) -> None:
    dictionary_of("topk").save(tmp_path / "sae")
    damage(tmp_path / "sae" / name)
    with pytest.raises((DamagedError, InputError), match=name):
        Dictionary.load(tmp_path / "sae")


def test_damage_to_the_copy_of_a_modality_is_found_by_verify_folder(tmp_path: Path) -> None:
    folder = dictionary_of("topk").save(tmp_path / "sae")
    verify_folder(folder)
    flip(folder / "text" / "sae_weights.safetensors")
    Dictionary.load(folder)
    with pytest.raises(DamagedError, match=r"text/sae_weights.safetensors as it was written"):
        verify_folder(folder)


def test_folders_without_hashes_open_with_a_note_unless_their_means_are_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = dictionary_of("topk").save(tmp_path / "sae")
    (folder / "sha256.json").unlink()
    assert Dictionary.load(folder).means is not None
    assert "an earlier version saved it" in caplog.text
    (folder / "means.safetensors").unlink()
    with pytest.raises(InputError, match=r"means.safetensors with the image and text mean.*found none"):
        Dictionary.load(folder)


@pytest.mark.parametrize("rescaled", [True, False])
def test_decoder_rows_are_what_one_unit_of_a_code_adds(rescaled: bool) -> None:
    sae = sae_of("topk")
    sae.cfg.rescale_acts_by_decoder_norm = rescaled
    with torch.no_grad():
        sae.W_dec.mul_(0.5 + torch.arange(len(sae.W_dec)).unsqueeze(1) % 4)
    dictionary = Dictionary(sae)
    one = torch.eye(dictionary.d_sae)
    rows = dictionary.decoder_of("image")
    torch.testing.assert_close(sae.decode(one) - sae.decode(0 * one), rows, atol=1e-5, rtol=1e-5)
    assert (not torch.allclose(rows, sae.W_dec)) == rescaled
