"""Identity and zero dictionaries as controls; retrieval and loss against slow versions; matching and duplicates."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import SAE, StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata

import cliplens
from cliplens.analysis import matched
from cliplens.errors import InputError, MismatchError
from cliplens.sites import Site
from cliplens.tasks import contrastive_loss, retrieval, zero_shot
from cliplens_plugins.fidelity import duplicates, stability
from cliplens_plugins.fidelity.downstream import Classes, downstream, recovered
from cliplens_plugins.fidelity.stability import contained, mixtures
from support.tiny import tiny_images, tiny_model, tiny_tokens


def control(width: int, hook: str, *, zero: bool) -> SAE:
    """A SAELens dictionary that gives back what it is given (positive and negative halves), or zeros."""
    config = StandardSAEConfig(
        d_in=width, d_sae=2 * width, apply_b_dec_to_input=False, metadata=SAEMetadata(hook_name=hook)
    )
    sae = StandardSAE(config)
    eye = torch.eye(width)
    with torch.no_grad():
        sae.W_enc.copy_(torch.cat([eye, -eye], dim=1))
        sae.W_dec.copy_(torch.cat([eye, -eye]) * (0 if zero else 1))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return sae


@pytest.mark.parametrize(
    "hook", ["vision.blocks.1.hook_resid_post", "vision.hook_embedding", "text.blocks.1.hook_resid_post"]
)
def test_an_identity_dictionary_costs_nothing_and_a_zero_one_what_ablation_costs(hook: str) -> None:
    clip = cliplens.wrap(tiny_model())
    images, tokens = tiny_images(12), tiny_tokens(12)
    classes = Classes(tiny_tokens(3, seed=5), torch.arange(12) % 3)
    site = Site.parse(hook)
    width = clip.width(site)
    same = downstream(
        clip, images, tokens, [control(width, hook, zero=False)], [site], classes=classes, forward_batch=5
    )
    none = downstream(clip, images, tokens, [control(width, hook, zero=True)], [site], classes=classes, forward_batch=5)
    assert same["dictionary"] == same["model"]
    assert none["dictionary"] == none["zero ablation"]
    for end in ("zero ablation", "mean ablation"):
        assert recovered(same, "contrastive_loss", end) == 1.0
    assert recovered(none, "contrastive_loss", "zero ablation") == 0.0
    assert np.isnan(recovered(dict.fromkeys(same, same["model"]), "contrastive_loss"))
    assert same["mean ablation"]["contrastive_loss"] != same["model"]["contrastive_loss"]
    assert set(same["model"]) >= {"contrastive_loss", "image_to_text_r1", "text_to_image_r10", "zero_shot"}


def test_retrieval_by_hand_and_ties_count_as_misses() -> None:
    image = torch.eye(3)
    text = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    figures = retrieval(image, text, at=(1, 2))
    assert figures["image_to_text_r1"] == pytest.approx(1 / 3)
    assert figures["image_to_text_r2"] == pytest.approx(2 / 3)
    assert figures["text_to_image_r1"] == pytest.approx(2 / 3)
    alike = torch.ones(4, 2)
    assert retrieval(alike, alike, at=(1,)) == {"image_to_text_r1": 0.0, "text_to_image_r1": 0.0}
    with pytest.raises(InputError, match="Fix: pass row i of both"):
        retrieval(torch.zeros(0, 2), torch.zeros(0, 2))


def test_losses_agree_with_the_formulas() -> None:
    g = torch.Generator().manual_seed(0)
    image, text = (torch.nn.functional.normalize(torch.randn(6, 4, generator=g).double(), dim=1) for _ in range(2))
    logits = 7.0 * image @ text.T
    rows = -torch.stack([logits[i, i] - logits[i].logsumexp(0) for i in range(6)]).mean()
    columns = -torch.stack([logits[i, i] - logits[:, i].logsumexp(0) for i in range(6)]).mean()
    assert contrastive_loss(image, text, 7.0) == pytest.approx(float(rows + columns) / 2)
    slow = sum(
        float(torch.log1p(torch.exp(-(1 if i == j else -1) * (logits[i, j] - 3.0)))) for i in range(6) for j in range(6)
    )
    assert contrastive_loss(image, text, 7.0, -3.0) == pytest.approx(slow / 6)


def test_zero_shot_counts_the_right_class() -> None:
    prototypes = torch.eye(3)
    assert zero_shot(torch.eye(3), prototypes, torch.tensor([0, 1, 0])) == pytest.approx(2 / 3)
    assert zero_shot(torch.ones(2, 3), prototypes, torch.tensor([0, 1])) == 0.0


def test_a_shuffled_dictionary_is_matched_back() -> None:
    g = torch.Generator().manual_seed(1)
    decoder = torch.randn(20, 16, generator=g)
    order = torch.randperm(20, generator=g)
    found = matched(decoder, 3 * decoder[order])
    assert order[found.partner].tolist() == list(range(20))
    np.testing.assert_allclose(found.cosine, 1.0, atol=1e-12)
    smaller = matched(decoder, decoder[:5])
    assert (smaller.partner >= 0).sum() == 5
    assert np.isnan(smaller.cosine).sum() == 15


def test_stability_per_class() -> None:
    g = torch.Generator().manual_seed(2)
    decoder = torch.randn(30, 64, generator=g)
    other = decoder.clone()
    other[20:] = torch.randn(10, 64, generator=g)
    rows = {row["class"]: row for row in stability(decoder, other, ["ImgD"] * 20 + ["CrossD"] * 10, seed=5)}
    assert rows["ImgD"]["found_again"] == 1.0
    assert rows["CrossD"]["found_again"] == 0.0
    assert rows["all"]["latents"] == 30
    chance = matched(mixtures(decoder, 5), other).cosine
    assert rows["ImgD"]["chance_cosine"] == pytest.approx(chance[:20].mean(), abs=1e-12)
    assert rows["all"]["chance_found"] == (chance >= 0.7).mean() == 0
    assert 0 < rows["all"]["chance_cosine"] < 0.5 < rows["all"]["mean_cosine"]
    with pytest.raises(MismatchError, match="d_in 64 and 63"):
        stability(decoder, other[:, :63])


def test_duplicates_and_hierarchy_by_hand() -> None:
    top = np.array([[0, 1, 2, 3], [1, 2, 3, 4], [0, 1, -1, -1], [7, 8, 9, 10], [-1, -1, -1, -1]])
    assert duplicates(top, least=0.5) == [(0, 1, 0.6), (0, 2, 0.5)]
    assert contained(top) == [(2, 0, 1.0)]
    assert duplicates(np.full((2, 3), -1)) == []


@torch.no_grad()
def test_every_condition_agrees_with_hooks_written_by_hand() -> None:
    clip = cliplens.wrap(tiny_model().double())
    images, tokens = tiny_images(10).double(), tiny_tokens(10)
    hook = "vision.blocks.1.hook_resid_post"
    sae = control(64, hook, zero=False).double()
    sae.dtype = torch.float64
    sae.W_dec.mul_(0.7)
    sae.b_enc.fill_(-0.05)
    found = downstream(clip, images, tokens, [sae], [Site.parse(hook)], forward_batch=4)
    _, cache = clip.run_with_cache(images, tokens, names_filter=hook)
    edits = {
        "model": lambda x, hook: x,
        "dictionary": lambda x, hook: torch.relu(x @ sae.W_enc + sae.b_enc) @ sae.W_dec + sae.b_dec,
        "zero ablation": lambda x, hook: 0 * x,
        "mean ablation": lambda x, hook: (
            cache[hook.name if hook.name in cache else f"vision.{hook.name}"].mean(0) + 0 * x
        ),
    }
    scale = float(clip.model.logit_scale.exp())
    text = clip.encode_text(tokens, normalize=True)
    for condition, edit in edits.items():
        with clip.hooks(fwd_hooks=[(hook, edit)]):
            image = clip.encode_image(images, normalize=True)
        alike = image @ text.T
        loss = np.mean(
            [
                float(-(scale * row[m] - (scale * row).logsumexp(0)))
                for rows in (alike, alike.T)
                for m, row in enumerate(rows)
            ]
        )
        assert found[condition]["contrastive_loss"] == pytest.approx(loss, abs=1e-10)
        ranks = [sum(float(v) >= float(row[m]) for j, v in enumerate(row) if j != m) for m, row in enumerate(alike)]
        assert found[condition]["image_to_text_r5"] == np.mean([rank < 5 for rank in ranks])


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_matching_duplicates_and_hierarchy_agree_with_the_slow_versions(seed: int) -> None:
    g = np.random.default_rng(seed)
    a, b = g.normal(size=(5, 7)), g.normal(size=(5, 7))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    alike = unit[0] @ unit[1].T
    best = max(itertools.permutations(range(5)), key=lambda order: sum(alike[i, j] for i, j in enumerate(order)))
    found = matched(torch.tensor(a), torch.tensor(b))
    assert found.partner.tolist() == list(best)
    np.testing.assert_allclose(found.cosine, [alike[i, j] for i, j in enumerate(best)], atol=1e-12)
    top = np.full((8, 6), -1)
    for row in top:
        size = g.integers(0, 7)
        row[:size] = g.choice(9, size, replace=False)
    sets = [set(row[row >= 0].tolist()) for row in top]
    jaccard = {
        (i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j])
        for i, j in itertools.combinations(range(8), 2)
        if sets[i] & sets[j]
    }
    assert {(i, j): x for i, j, x in duplicates(top, 0.3)} == pytest.approx(
        {pair: x for pair, x in jaccard.items() if x >= 0.3}, abs=1e-12
    )
    inside = {
        (i, j): len(sets[i] & sets[j]) / len(sets[i])
        for i, j in itertools.permutations(range(8), 2)
        if sets[i] and len(sets[i]) < len(sets[j])
    }
    assert {(i, j): x for i, j, x in contained(top, 0.6)} == pytest.approx(
        {pair: x for pair, x in inside.items() if x >= 0.6}, abs=1e-12
    )


@pytest.mark.parametrize("bias", [None, -3.0])
def test_the_loss_takes_the_models_scale_and_bias(bias: float | None) -> None:
    clip = cliplens.wrap(tiny_model(init_logit_bias=bias))
    images, tokens = tiny_images(6), tiny_tokens(6)
    site = Site.parse("vision.hook_embedding")
    found = downstream(clip, images, tokens, [control(clip.width(site), str(site), zero=False)], [site])
    x, y = clip.encode_image(images, normalize=True), clip.encode_text(tokens, normalize=True)
    size = clip.model.logit_scale.detach().exp().item()
    expected = contrastive_loss(x, y, size, bias)
    assert found["model"]["contrastive_loss"] == pytest.approx(expected, rel=1e-6)
    scale, added = clip.logit_scale_and_bias()
    assert scale.item() == pytest.approx(size)
    assert (added is None) == (bias is None)
    assert bias is None or added.item() == bias


def test_chance_lies_in_the_space_of_the_rows_and_rises_with_their_number() -> None:
    g = torch.Generator().manual_seed(4)
    flat = torch.randn(100, 16, generator=g, dtype=torch.float64)
    flat[:, 5:] = 0
    drawn = mixtures(flat, 1)
    assert drawn.shape == flat.shape
    assert (drawn[:, 5:] == 0).all()
    assert torch.linalg.matrix_rank(drawn) == 5
    chance = [
        stability(flat[:n, :5], torch.randn(n, 5, generator=g, dtype=torch.float64))[0]["chance_cosine"]
        for n in (10, 100)
    ]
    assert 0 < chance[0] < chance[1] < 1
