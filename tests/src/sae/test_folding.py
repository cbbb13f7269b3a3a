"""The very same codes: stock `SAE.load_from_disk` on raw activations against our own encode, for every architecture."""

from pathlib import Path

import pytest
import torch
from sae_lens import SAE

from cliplens.errors import InputError
from cliplens.sae import Dictionary
from cliplens.sae.folding import check_foldable
from support.dictionaries import D_IN, D_SAE, ROWS, STOCK, dictionary_of, sae_of
from support.streams import paired


@pytest.mark.parametrize("reads_less_b_dec", [True, False])
@pytest.mark.parametrize("architecture", STOCK)
def test_stock_saelens_on_raw_activations_gives_our_codes_bit_for_bit(
    architecture: str, reads_less_b_dec: bool, tmp_path: Path
) -> None:
    dictionary, acts = dictionary_of(architecture, reads_less_b_dec=reads_less_b_dec), paired(ROWS, D_IN)
    codes = dictionary.encode(acts)
    dictionary.save(tmp_path / "sae")
    for modality in ("image", "text"):
        stock = SAE.load_from_disk(tmp_path / "sae" / modality)
        assert torch.equal(stock.encode(acts.of(modality)), codes.of(modality).dense())
        assert len(codes.of(modality).values) > 0


@pytest.mark.parametrize("reads_less_b_dec", [True, False])
@pytest.mark.parametrize("architecture", STOCK)
def test_folding_a_mean_equals_taking_it_away_first(architecture: str, reads_less_b_dec: bool) -> None:
    dictionary, acts = (
        dictionary_of(architecture, reads_less_b_dec=reads_less_b_dec, dtype="float64"),
        paired(ROWS, D_IN),
    )
    for modality in ("image", "text"):
        raw, mean = acts.of(modality).double(), dictionary.means[modality].double()
        through = dictionary.folded(modality)
        expected = dictionary.sae.encode(raw - mean)
        torch.testing.assert_close(through.encode(raw), expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(through(raw), dictionary.sae(raw - mean) + mean, atol=1e-12, rtol=0)


@pytest.mark.parametrize("architecture", STOCK)
def test_the_dictionary_itself_on_centred_activations_agrees_to_rounding(architecture: str, tmp_path: Path) -> None:
    dictionary, acts = dictionary_of(architecture), paired(ROWS, D_IN)
    dictionary.save(tmp_path / "sae")
    stock, centred, codes = SAE.load_from_disk(tmp_path / "sae"), dictionary.centre(acts), dictionary.encode(acts)
    for modality in ("image", "text"):
        torch.testing.assert_close(stock.encode(centred.of(modality)), codes.of(modality).dense(), atol=3e-6, rtol=0)


@pytest.mark.parametrize("architecture", STOCK)
def test_sparse_decode_equals_stock_decode(architecture: str) -> None:
    dictionary, acts = dictionary_of(architecture), paired(ROWS, D_IN)
    codes = dictionary.encode(acts)
    rebuilt = dictionary.decode(codes)
    for modality in ("image", "text"):
        expected = dictionary.sae.decode(codes.of(modality).dense())
        torch.testing.assert_close(rebuilt.of(modality), expected, atol=1e-5, rtol=0)
        # The decoder's rows are what a unit of each latent adds.
        added = dictionary.sae.decode(torch.eye(D_SAE)) - dictionary.sae.decode(torch.zeros(D_SAE, D_SAE))
        torch.testing.assert_close(dictionary.decoder, added, atol=1e-5, rtol=0)


def test_folded_copies_share_the_weights_that_do_not_change() -> None:
    dictionary = dictionary_of("topk")
    assert dictionary.folded("image").W_dec.data_ptr() == dictionary.sae.W_dec.data_ptr()
    assert not torch.equal(dictionary.folded("image").b_dec, dictionary.sae.b_dec)


@pytest.mark.parametrize("normalise", ["layer_norm", "constant_norm_rescale"])
def test_a_mean_cannot_pass_a_normalisation_that_is_not_affine(normalise: str) -> None:
    with pytest.raises(InputError, match=f"Expected an affine input normalisation.*{normalise}.*centre=False"):
        dictionary_of("standard", normalise=normalise)


@pytest.mark.parametrize("normalise", ["layer_norm", "constant_norm_rescale"])
def test_dictionaries_without_means_read_raw_activations(normalise: str) -> None:
    dictionary, acts = Dictionary(sae_of("standard", normalise=normalise)), paired(ROWS, D_IN)
    batch = dictionary.batch(acts)
    expected = dictionary.sae.encode(acts.image)
    assert torch.equal(batch.codes.image.dense(), expected)
    assert torch.equal(batch.reconstruction.image, dictionary.sae(acts.image))
    with pytest.raises(InputError, match=r"use Dictionary.batch"):
        dictionary.decode(batch.codes)


def test_an_architecture_that_cannot_be_folded_is_an_error() -> None:
    class Strange(SAE):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return x

        decode = encode

    with pytest.raises(InputError, match=r"found Strange.*centre=False"):
        check_foldable(Strange())
