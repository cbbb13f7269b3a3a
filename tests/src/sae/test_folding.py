"""The very same codes: stock `SAE.load_from_disk` on raw activations against our own encode, for every architecture."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sae_lens import SAE
from sae_lens.registry import get_sae_training_class
from support.streams import paired, provenance

from cliplens.errors import InputError
from cliplens.sae import Dictionary, dictionary_config, folded, inference

D_IN, D_SAE, ROWS = 24, 60, 200
STOCK = (
    "standard",
    "gated",
    "topk",
    "abstopk",
    "batchtopk",
    "jumprelu",
    "matryoshka_batchtopk",
    "matching_pursuit",
)


def sae_of(architecture: str, *, reads_less_b_dec: bool = True, normalise: str = "none", dtype: str = "float32") -> SAE:
    """A random dictionary with every bias away from zero, as SAELens saves it."""
    config = dictionary_config(
        architecture,
        D_IN,
        D_SAE,
        k=6,
        apply_b_dec_to_input=reads_less_b_dec,
        normalize_activations=normalise,
        dtype=dtype,
    )
    torch.manual_seed(3)
    sae = get_sae_training_class(architecture)[0](replace(config))
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if name != "W_dec":
                parameter.add_(0.1 * torch.randn_like(parameter))
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(0.02)
        if hasattr(sae, "threshold"):
            sae.threshold.abs_()
    return inference(sae)


def dictionary_of(architecture: str, **options: object) -> Dictionary:
    acts = paired(ROWS, D_IN)
    means = {"image": acts.image.mean(0), "text": acts.text.mean(0)}
    return Dictionary(sae_of(architecture, **options), means, provenance(D_IN))


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
    dictionary, acts = dictionary_of(architecture, reads_less_b_dec=reads_less_b_dec, dtype="float64"), paired(ROWS, D_IN)
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
    with pytest.raises(InputError, match=f"Expected an input normalisation that is affine.*{normalise}.*centre=False"):
        dictionary_of("standard", normalise=normalise)


@pytest.mark.parametrize("normalise", ["layer_norm", "constant_norm_rescale"])
def test_such_dictionaries_still_read_raw_activations(normalise: str) -> None:
    dictionary, acts = Dictionary(sae_of("standard", normalise=normalise)), paired(ROWS, D_IN)
    batch = dictionary.batch(acts)
    expected = dictionary.sae.encode(acts.image)
    assert torch.equal(batch.codes.image.dense(), expected)
    assert torch.equal(batch.reconstruction.image, dictionary.sae(acts.image))
    with pytest.raises(InputError, match=r"use Dictionary.batch"):
        dictionary.decode(batch.codes)


def test_an_architecture_nobody_can_fold_is_refused() -> None:
    class Strange(torch.nn.Module):
        pass

    with pytest.raises(InputError, match="Found Strange"):
        folded(_strange(), torch.zeros(D_IN))


def _strange() -> SAE:
    from sae_lens.saes.standard_sae import StandardSAE
    from sae_lens.saes.temporal_sae import TemporalSAE

    class Strange(TemporalSAE):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.W_dec = torch.nn.Parameter(torch.zeros(D_SAE, D_IN))
            self.cfg = StandardSAE(sae_of("standard").cfg).cfg

    return Strange()
