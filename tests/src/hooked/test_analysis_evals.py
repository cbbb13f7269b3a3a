"""SAELens' own evaluations on both towers, with a bank of concepts and without one."""

from typing import Any

import pytest
import torch
from datasets import Dataset
from sae_lens.evals import get_eval_everything_config, run_evals
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.training.activation_scaler import ActivationScaler
from sae_lens.training.activations_store import ActivationsStore

import cliplens
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from support.tiny import TinyTokenizer, tiny_images, tiny_model, tiny_tokens

RESID = "blocks.1.hook_resid_post"


def clip_with_images(n: int = 24) -> HookedCLIP:
    clip = cliplens.wrap(tiny_model(), tokenizer=TinyTokenizer())
    images = tiny_images(n)
    clip.vision.image_source = lambda numbers: images[numbers]
    return clip


def identity(d: int) -> StandardSAE:
    sae = StandardSAE(StandardSAEConfig(d_in=d, d_sae=2 * d, metadata=SAEMetadata(hook_name=RESID)))
    with torch.no_grad():
        sae.W_enc.copy_(torch.cat([torch.eye(d), -torch.eye(d)], 1))
        sae.W_dec.copy_(sae.W_enc.T)
    return sae


def evaluated(clip: HookedCLIP, side: str, **options: Any) -> dict[str, Any]:
    tower = clip.towers[side]
    n_ctx = tower.cfg.n_ctx
    tokens = tower.image_tokens(torch.arange(24)) if side == "vision" else tiny_tokens(24)
    store = ActivationsStore(
        model=tower,
        dataset=Dataset.from_dict({"tokens": tokens.tolist()}),
        streaming=False,
        hook_name=RESID,
        hook_head_index=None,
        context_size=n_ctx,
        d_in=tower.width(RESID),
        n_batches_in_buffer=2,
        total_training_tokens=10_000,
        store_batch_size_prompts=4,
        train_batch_size_tokens=8,
        prepend_bos=False,
        normalize_activations="none",
        device=torch.device("cpu"),
        dtype="float32",
    )
    config = get_eval_everything_config(4, n_eval_reconstruction_batches=2, n_eval_sparsity_variance_batches=2)
    metrics, _ = run_evals(identity(tower.width(RESID)), store, tower, ActivationScaler(), config, **options)
    return metrics


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("special", [False, [0]])
def test_all_of_saelens_evaluations_run_on_images(special: Any) -> None:
    clip = clip_with_images()
    clip.set_text_bank(["one", "two", "three"], labels=torch.arange(24) % 3)
    metrics = evaluated(clip, "vision", exclude_special_tokens=special)
    assert metrics["model_behavior_preservation"]["kl_div_score"] == pytest.approx(1, abs=1e-3)
    assert metrics["model_performance_preservation"]["ce_loss_score"] == pytest.approx(1, abs=1e-3)
    assert metrics["reconstruction_quality"]["explained_variance"] == pytest.approx(1, abs=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_all_of_saelens_evaluations_run_on_captions() -> None:
    clip = clip_with_images()
    with torch.no_grad():
        clip.text.set_bank(clip.vision(tiny_images(5, seed=1)), scale=10.0)
    metrics = evaluated(clip, "text", exclude_special_tokens=True)
    assert metrics["model_performance_preservation"]["ce_loss_score"] == pytest.approx(1, abs=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_without_a_bank_the_error_says_how_to_register_one() -> None:
    with pytest.raises(InputError, match="set_text_bank"):
        evaluated(clip_with_images(), "vision", exclude_special_tokens=False)
