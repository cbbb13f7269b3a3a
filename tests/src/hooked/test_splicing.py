"""Dictionaries in the forward pass: what changes, what must not, and what is left behind."""

import pytest
import torch
from sae_lens import SAE
from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.matching_pursuit_sae import MatchingPursuitSAE, MatchingPursuitSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from sae_lens.saes.transcoder import SkipTranscoder, SkipTranscoderConfig, Transcoder, TranscoderConfig
from torch import Tensor, nn

import cliplens
from cliplens.errors import InputError, MismatchError, UnknownNameError
from cliplens.hooked import HookedCLIP
from cliplens.records import PairedActs, Provenance
from cliplens.sae import Dictionary
from support.tiny import TinyTokenizer, tiny_images, tiny_model, tiny_tokens

RESID = "blocks.1.hook_resid_post"
CODES = f"{RESID}.hook_sae_acts_post"


def made(kind: type, config: type, hook: str = RESID, d_in: int = 64, seed: int = 0, **options: object) -> "SAE":
    """A stock SAE with random weights, its biases too."""
    metadata = SAEMetadata(hook_name=hook, **options.pop("metadata", {}))
    torch.manual_seed(seed)
    sae = kind(config(d_in=d_in, d_sae=96, metadata=metadata, **options))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
        if hasattr(sae, "threshold"):
            sae.threshold.abs_()
    return sae


def standard(hook: str = RESID, d_in: int = 64, **options: object) -> "SAE":
    return made(StandardSAE, StandardSAEConfig, hook, d_in, **options)


STOCK = {
    "standard": standard,
    "topk": lambda: made(TopKSAE, TopKSAEConfig, k=7),
    "jumprelu": lambda: made(JumpReLUSAE, JumpReLUSAEConfig),
    "gated": lambda: made(GatedSAE, GatedSAEConfig),
    "matching_pursuit": lambda: made(MatchingPursuitSAE, MatchingPursuitSAEConfig, max_iterations=5),
    "layer_norm": lambda: standard(normalize_activations="layer_norm"),
}


class Identity(nn.Module):
    """A module that is no SAELens SAE, and changes nothing."""

    def __init__(self, hook: str, d_in: int) -> None:
        super().__init__()
        self.cfg = type("Cfg", (), {"d_in": d_in, "d_sae": d_in, "metadata": type("M", (), {"hook_name": hook})})()

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, codes: Tensor) -> Tensor:
        return codes

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def by_hand(tower: object, inputs: Tensor, hook: str, write: object) -> Tensor:
    """The output with an activation replaced by a plain hook."""
    return tower.run_with_hooks(inputs, fwd_hooks=[(hook, lambda x, hook: write(x))])


@pytest.mark.parametrize("architecture", STOCK)
@torch.no_grad()
def test_a_spliced_sae_writes_its_reconstruction(clip: HookedCLIP, architecture: str) -> None:
    sae, images = STOCK[architecture](), tiny_images()
    expected = by_hand(clip.vision, images, RESID, sae)
    assert torch.equal(clip.vision.run_with_saes(images, saes=sae), expected)
    assert not torch.allclose(expected, clip.vision(images), atol=1e-3)


@pytest.mark.parametrize("architecture", STOCK)
@torch.no_grad()
def test_with_its_error_term_nothing_changes_bit_for_bit(clip: HookedCLIP, architecture: str) -> None:
    images = tiny_images()
    plain = by_hand(clip.vision, images, RESID, lambda x: x)
    spliced = clip.vision.run_with_saes(images, saes=STOCK[architecture](), use_error_term=True)
    assert torch.equal(spliced, plain)
    watched, _ = clip.vision.run_with_cache_with_saes(images, saes=STOCK[architecture](), use_error_term=True)
    torch.testing.assert_close(watched, plain, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("side", "hook", "width"), [("vision", RESID, 64), ("text", "hook_embedding", 32)])
@torch.no_grad()
def test_an_identity_changes_nothing(clip: HookedCLIP, side: str, hook: str, width: int) -> None:
    tower = clip.towers[side]
    inputs = tiny_images() if side == "vision" else tiny_tokens()
    plain = by_hand(tower, inputs, hook, lambda x: x)
    assert torch.equal(tower.run_with_saes(inputs, saes=Identity(hook, width)), plain)
    torch.testing.assert_close(plain, tower(inputs), rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_stock_sae_made_to_be_the_identity_changes_nothing(clip: HookedCLIP) -> None:
    sae = standard()
    eye = torch.eye(64)
    sae.W_enc.copy_(torch.cat([eye, torch.zeros(64, 32)], dim=1))
    sae.W_dec.copy_(sae.W_enc.T)
    sae.b_enc.zero_()
    sae.b_dec.fill_(-1e3)  # everything lies above, so that the ReLU cuts nothing
    images = tiny_images()
    torch.testing.assert_close(clip.vision.run_with_saes(images, saes=sae), clip.vision(images), rtol=0, atol=1e-3)


@torch.no_grad()
def test_the_hooks_inside_show_in_the_cache_and_carry_the_codes(clip: HookedCLIP) -> None:
    sae, images = standard(), tiny_images()
    _, before = clip.vision.run_with_cache(images, names_filter=RESID)
    _, cache = clip.vision.run_with_cache_with_saes(images, saes=[sae], use_error_term=True)
    inside = {name.removeprefix(f"{RESID}.") for name in cache if name.startswith(f"{RESID}.")}
    assert inside == set(sae.hook_dict)
    torch.testing.assert_close(cache[CODES], sae.encode(before[RESID]), rtol=0, atol=1e-5)
    assert torch.equal(cache[f"{RESID}.hook_sae_output"], cache[RESID])
    torch.testing.assert_close(cache[f"{RESID}.hook_sae_error"], before[RESID] - sae(before[RESID]))


@pytest.mark.parametrize("use_error_term", [False, True])
@torch.no_grad()
def test_ablating_a_latent_takes_its_direction_out(clip: HookedCLIP, use_error_term: bool) -> None:
    sae, images = standard(), tiny_images()
    _, cache = clip.vision.run_with_cache(images, names_filter=RESID)
    latent = int(sae.encode(cache[RESID]).sum((0, 1)).argmax())

    def ablate(codes: Tensor, hook: object) -> Tensor:
        codes = codes.clone()
        codes[..., latent] = 0
        return codes

    def expected(x: Tensor) -> Tensor:
        kept = x if use_error_term else sae(x)
        return kept - sae.encode(x)[..., latent, None] * sae.W_dec[latent]

    ablated = clip.vision.run_with_hooks_with_saes(
        images, saes=sae, use_error_term=use_error_term, fwd_hooks=[(CODES, ablate)]
    )
    torch.testing.assert_close(ablated, by_hand(clip.vision, images, RESID, expected), rtol=0, atol=2e-5)


@torch.no_grad()
def test_edits_of_the_error_term_change_the_output(clip: HookedCLIP) -> None:
    sae, images = standard(), tiny_images()
    hooks = [(f"{RESID}.hook_sae_error", lambda error, hook: torch.zeros_like(error))]
    without = clip.vision.run_with_hooks_with_saes(images, saes=sae, use_error_term=True, fwd_hooks=hooks)
    torch.testing.assert_close(without, clip.vision.run_with_saes(images, saes=sae))


def test_gradients_reach_the_codes(clip: HookedCLIP) -> None:
    sae, images = standard(), tiny_images(2)
    kept = {}
    with clip.vision.saes(sae, use_error_term=True), clip.vision.hooks([(CODES, lambda x, hook: kept.update(x=x))]):
        out = clip.vision(images)
    (gradient,) = torch.autograd.grad(out.sum(), kept["x"])
    assert gradient.shape == (2, 5, 96)
    assert gradient.abs().sum() > 0


@torch.no_grad()
def test_splicing_renames_no_hook_point(clip: HookedCLIP) -> None:
    sae, images = standard(), tiny_images()
    own = {name: point.name for name, point in sae.hook_dict.items()}
    point, names = clip.vision.hook_dict[RESID], set(clip.vision.hook_dict)
    seen = []
    with clip.vision.saes(sae):
        assert {name: p.name for name, p in sae.hook_dict.items()} == own
        assert set(clip.vision.hook_dict) - names == {f"{RESID}.{name}" for name in own}
        assert f"vision.{CODES}" in clip.hook_dict
        with clip.vision.hooks([(CODES, lambda x, hook: seen.append((hook.name, hook.layer())))]):
            clip.vision(images)
    assert seen == [(CODES, 1)]
    assert {name: p.name for name, p in sae.hook_dict.items()} == own
    assert set(clip.vision.hook_dict) == names
    assert clip.vision.hook_dict[RESID] is point
    assert not any(p._forward_hooks for p in sae.hook_dict.values())
    assert torch.equal(clip.vision(images), clip.model.encode_image(images))


@torch.no_grad()
def test_permanent_hooks_stay_and_read_the_reconstruction(clip: HookedCLIP) -> None:
    sae, images, seen = standard(), tiny_images(), []
    clip.vision.add_hook(RESID, lambda x, hook: seen.append(x), is_permanent=True)
    try:
        _, cache = clip.vision.run_with_cache_with_saes(images, saes=sae)
        clip.vision(images)
        clip.vision.reset_hooks()
        clip.vision(images)
    finally:
        clip.vision.reset_hooks(including_permanent=True)
    assert len(seen) == 3
    assert torch.equal(seen[0], cache[f"{RESID}.hook_sae_output"])
    assert torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[0], seen[1])


@torch.no_grad()
def test_hooks_of_the_sae_itself_fire_too(clip: HookedCLIP) -> None:
    sae, seen = standard(), []
    with sae.hooks([("hook_sae_acts_post", lambda x, hook: seen.append(hook.name))]):
        clip.vision.run_with_saes(tiny_images(), saes=sae)
    assert seen == ["hook_sae_acts_post"]


def test_the_context_restores_earlier_dictionaries(clip: HookedCLIP) -> None:
    first, second = standard(), standard(seed=1)
    clip.vision.add_sae(first, use_error_term=True)
    try:
        with clip.vision.saes([second]):
            assert clip.vision.acts_to_saes == {RESID: second}
        assert clip.vision.acts_to_saes == {RESID: first}
        assert clip.vision.splices[RESID].use_error_term
        with pytest.raises(ZeroDivisionError), clip.vision.saes([second]):
            raise ZeroDivisionError
        with pytest.raises(MismatchError), clip.vision.saes([second, standard("hook_embedding")]):
            pass
        assert clip.acts_to_saes == {f"vision.{RESID}": first}
    finally:
        clip.reset_saes()
    assert clip.vision.acts_to_saes == {}


def test_reset_of_one_leaves_the_other(clip: HookedCLIP) -> None:
    first, second = standard(), standard("hook_embedding", 32)
    clip.vision.add_sae(first)
    clip.vision.add_sae(second)
    clip.reset_saes("vision.hook_embedding")
    assert clip.vision.acts_to_saes == {RESID: first}
    with pytest.raises(InputError, match="hook_embedding"):
        clip.vision.reset_saes("hook_embedding")
    clip.vision.reset_saes(RESID)
    assert clip.splices == {}


@torch.no_grad()
def test_joint_names_and_clip_tower_reach_the_towers(clip: HookedCLIP) -> None:
    images, tokens = tiny_images(), tiny_tokens()
    vision = standard("vision.hook_embedding", 32)
    text = standard("hook_embedding", 32, metadata={"clip_tower": "text"}, seed=1)
    logits, cache = clip.run_with_cache_with_saes(images, tokens, saes=[vision, text])
    u, v = clip.encode_image(images, normalize=True), clip.encode_text(tokens, normalize=True)
    torch.testing.assert_close(logits, clip.logits(vision(u), text(v)), rtol=1e-4, atol=1e-4)
    assert cache["text.hook_embedding.hook_sae_acts_post"].shape == (4, 1, 96)
    assert "hook_embedding.hook_sae_input" in cache.vision
    assert torch.equal(clip.vision.run_with_saes(images, saes=vision), clip.vision.run_with_saes(images, saes=vision))


@torch.no_grad()
def test_one_dictionary_can_be_in_both_towers_at_once(clip: HookedCLIP) -> None:
    sae, images, tokens = standard("hook_embedding", 32), tiny_images(), tiny_tokens()
    clip.add_sae(sae, hook="vision.hook_embedding")
    clip.add_sae(sae, hook="text.hook_embedding")
    try:
        logits, cache = clip.run_with_cache(images, tokens)
    finally:
        clip.reset_saes()
    codes = [cache[f"{side}.hook_embedding.hook_sae_acts_post"] for side in ("vision", "text")]
    expected = [sae.encode(clip.encode_image(images, True)), sae.encode(clip.encode_text(tokens, True))]
    for got, wanted in zip(codes, expected, strict=True):
        torch.testing.assert_close(got.squeeze(1), wanted)
    torch.testing.assert_close(logits, clip.logits(*(sae.decode(c.squeeze(1)) for c in codes)))


@pytest.mark.parametrize("in_cfg", [True, False])
@torch.no_grad()
def test_heads_are_concatenated_for_the_dictionary(clip: HookedCLIP, in_cfg: bool) -> None:
    hook = "blocks.1.attn.hook_z"
    sae, images = standard(hook, reshape_activations="hook_z" if in_cfg else "none"), tiny_images()
    flat = standard(hook)
    expected = by_hand(clip.vision, images, hook, lambda z: flat(z.flatten(2)).view_as(z))
    torch.testing.assert_close(clip.vision.run_with_saes(images, saes=sae), expected, rtol=0, atol=1e-6)
    _, cache = clip.vision.run_with_cache_with_saes(images, saes=sae, use_error_term=True)
    assert cache[f"{hook}.hook_sae_input"].shape == (4, 5, 64)
    assert cache[f"{hook}.hook_sae_output"].shape == (4, 5, 4, 16)


@torch.no_grad()
def test_one_head_alone(clip: HookedCLIP) -> None:
    hook = "blocks.1.attn.hook_z"
    sae, images = standard(hook, 16, metadata={"hook_head_index": 2}), tiny_images()

    def expected(z: Tensor) -> Tensor:
        z = z.clone()
        z[:, :, 2] = sae(z[:, :, 2])
        return z

    spliced = clip.vision.run_with_saes(images, saes=sae)
    torch.testing.assert_close(spliced, by_hand(clip.vision, images, hook, expected), rtol=0, atol=1e-6)


READS, WRITES = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"


@pytest.mark.parametrize(("kind", "config"), [(Transcoder, TranscoderConfig), (SkipTranscoder, SkipTranscoderConfig)])
@torch.no_grad()
def test_a_transcoder_reads_one_hook_and_writes_another(clip: HookedCLIP, kind: type, config: type) -> None:
    coder = made(kind, config, READS, d_out=64, apply_b_dec_to_input=False, metadata={"hook_name_out": WRITES})
    images = tiny_images()
    _, cache = clip.vision.run_with_cache(images, names_filter=[READS, WRITES])
    expected = by_hand(clip.vision, images, WRITES, lambda out: coder(cache[READS]))
    with clip.vision.saes(coder):
        assert clip.acts_to_saes == {f"vision.{READS}": coder}
        torch.testing.assert_close(clip.vision(images), expected, rtol=0, atol=1e-6)
    plain = by_hand(clip.vision, images, WRITES, lambda x: x)
    with_error, inside = clip.vision.run_with_cache_with_saes(images, saes=coder, use_error_term=True)
    torch.testing.assert_close(with_error, plain, rtol=0, atol=2e-6)
    torch.testing.assert_close(
        inside[f"{WRITES}.hook_sae_error"], cache[WRITES] - coder(cache[READS]), rtol=0, atol=1e-5
    )
    assert not clip.vision.hook_dict[READS]._forward_hooks


@torch.no_grad()
def test_a_transcoder_reads_its_input_after_hooks(clip: HookedCLIP) -> None:
    coder = made(
        Transcoder, TranscoderConfig, READS, d_out=64, apply_b_dec_to_input=False, metadata={"hook_name_out": WRITES}
    )
    images = tiny_images()
    zero = [(READS, lambda x, hook: torch.zeros_like(x))]
    edited = clip.vision.run_with_hooks_with_saes(images, saes=coder, fwd_hooks=zero)
    expected = by_hand(clip.vision, images, WRITES, lambda x: coder(torch.zeros_like(x)))
    torch.testing.assert_close(edited, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_special_positions_of_images_are_kept(clip: HookedCLIP) -> None:
    sae, images = standard(), tiny_images()
    _, before = clip.vision.run_with_cache(images, names_filter=RESID)
    for which in (True, [0]):
        _, cache = clip.vision.run_with_cache_with_saes(
            images, saes=sae, exclude_special_tokens=which, names_filter=RESID
        )
        assert torch.equal(cache[RESID][:, 0], before[RESID][:, 0])
        torch.testing.assert_close(cache[RESID][:, 1:], sae(before[RESID])[:, 1:], rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="class token"):
        clip.vision.run_with_saes(images, saes=sae, exclude_special_tokens=[5])


@torch.no_grad()
def test_special_positions_of_captions_are_kept_but_not_words_with_the_padding_id(clip: HookedCLIP) -> None:
    sae = standard(RESID, 48)
    tokens = torch.tensor([[47, 5, 0, 9, 48, 0, 0, 0], [47, 5, 6, 7, 8, 9, 10, 48]])
    special = torch.tensor([[1, 0, 0, 0, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0, 1]], dtype=torch.bool)
    _, before = clip.text.run_with_cache(tokens, names_filter=RESID)
    _, cache = clip.text.run_with_cache_with_saes(tokens, saes=sae, exclude_special_tokens=True, use_error_term=True)
    assert torch.equal(cache[f"{RESID}.hook_sae_error"][special], torch.zeros(7, 48))
    only = {"saes": sae, "names_filter": RESID}
    _, cache = clip.text.run_with_cache_with_saes(tokens, **only, exclude_special_tokens=True)
    assert torch.equal(cache[RESID][special], before[RESID][special])
    assert (cache[RESID] != before[RESID]).any(-1)[~special].all()
    _, cache = clip.text.run_with_cache_with_saes(tokens, **only, exclude_special_tokens=[5])
    assert torch.equal((cache[RESID] == before[RESID]).all(-1), tokens == 5)


@torch.no_grad()
def test_pooled_hooks_have_no_special_positions(clip: HookedCLIP) -> None:
    sae, images = standard("hook_embedding", 32), tiny_images()
    masked = clip.vision.run_with_saes(images, saes=sae, exclude_special_tokens=True)
    assert torch.equal(masked, clip.vision.run_with_saes(images, saes=sae))


@torch.no_grad()
def test_a_batch_size_equal_to_the_width_is_no_problem(clip: HookedCLIP) -> None:
    sae, images = standard("hook_embedding", 32), tiny_images(32)
    alone = torch.cat([clip.vision.run_with_saes(image[None], saes=sae) for image in images])
    torch.testing.assert_close(clip.vision.run_with_saes(images, saes=sae), alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_an_appended_class_token_is_special() -> None:
    clip = cliplens.wrap(tiny_model("coca"), tokenizer=TinyTokenizer())
    sae, tokens = standard(RESID, 48), tiny_tokens()
    _, before = clip.text.run_with_cache(tokens, names_filter=RESID)
    _, cache = clip.text.run_with_cache_with_saes(tokens, saes=sae, exclude_special_tokens=True, names_filter=RESID)
    assert torch.equal(cache[RESID][:, -1], before[RESID][:, -1])


def test_codes_can_be_read_by_name_and_have_a_width(clip: HookedCLIP) -> None:
    with clip.vision.saes(standard()), torch.no_grad():
        assert clip.width(f"vision.{CODES}") == 96
        assert clip.vision.stop_after([CODES]) == 2
        assert clip.vision.read(tiny_images(), [CODES])[CODES].shape == (4, 5, 96)


def test_stop_at_layer_works_with_a_dictionary_in(clip: HookedCLIP) -> None:
    sae, images = standard(), tiny_images()
    with torch.no_grad():
        stream = clip.vision.run_with_saes(images, saes=sae, stop_at_layer=2)
        torch.testing.assert_close(stream, sae(clip.vision(images, stop_at_layer=2)), rtol=0, atol=1e-5)


@torch.no_grad()
def test_lower_precision_streams_keep_their_dtype() -> None:
    clip = cliplens.wrap(tiny_model().to(torch.bfloat16))
    out = clip.vision.run_with_saes(tiny_images(), saes=standard(), use_error_term=True)
    assert out.dtype == torch.bfloat16


def refusals(clip: HookedCLIP) -> list:
    return [
        (UnknownNameError, "blocks.1.hook_resid_post", lambda: clip.vision.add_sae(standard("blocks.1.resid_post"))),
        (MismatchError, "d_in=32", lambda: clip.vision.add_sae(standard(RESID, 32))),
        (MismatchError, "vision tower", lambda: clip.text.add_sae(standard(f"vision.{RESID}"))),
        (InputError, "clip_tower", lambda: clip.add_sae(standard())),
        (InputError, "hook_name", lambda: clip.vision.add_sae(Identity("", 64))),
        (
            InputError,
            "tokenizer",
            lambda: cliplens.wrap(tiny_model()).text.run_with_saes(
                tiny_tokens(), saes=standard(RESID, 48), exclude_special_tokens=True
            ),
        ),
    ]


@pytest.mark.parametrize("which", range(6))
def test_dictionaries_that_do_not_fit_are_errors(clip: HookedCLIP, which: int) -> None:
    error, words, call = refusals(clip)[which]
    with pytest.raises(error, match=words):
        call()
    assert clip.splices == {}


def dictionary(clip: HookedCLIP, hook: str, d_in: int, token: str = "auto") -> Dictionary:
    sites = (f"vision.{hook}", f"text.{hook}")
    means = {"image": torch.randn(d_in), "text": torch.randn(d_in)}
    return Dictionary(standard(hook, d_in), means, Provenance(clip.identity, sites, d_in, token, centred=True))


@torch.no_grad()
def test_a_centred_dictionary_reads_raw_activations_of_both_towers(clip: HookedCLIP) -> None:
    made_here, images, tokens = dictionary(clip, "hook_embedding", 32), tiny_images(), tiny_tokens()
    _, cache = clip.run_with_cache_with_saes(images, tokens, saes=made_here)
    raw = PairedActs(tuple("abcd"), clip.encode_image(images, True), clip.encode_text(tokens, True))
    codes = made_here.encode(raw)
    for side, wanted in (("vision", codes.image), ("text", codes.text)):
        got = cache[f"{side}.hook_embedding.hook_sae_acts_post"].squeeze(1)
        torch.testing.assert_close(got, wanted.dense(), rtol=1e-4, atol=1e-5)
    with clip.text.saes(made_here):
        assert list(clip.splices) == ["text.hook_embedding"]


@pytest.mark.parametrize("side", ["vision", "text"])
@torch.no_grad()
def test_a_dictionary_of_one_token_is_applied_at_that_position_only(side: str) -> None:
    clip = cliplens.wrap(tiny_model(text={"width": 64, "heads": 4}), tokenizer=TinyTokenizer())
    tower, inputs = clip.towers[side], tiny_images() if side == "vision" else tiny_tokens()
    place = tower.special_position(inputs)
    _, before = tower.run_with_cache(inputs, names_filter=RESID)
    for token, stands in (("auto", "there"), ("patches", "elsewhere"), ("all", "everywhere")):
        if token == "patches" and side == "text":
            continue
        made_here = dictionary(clip, RESID, 64, token)
        _, cache = tower.run_with_cache_with_saes(inputs, saes=made_here, names_filter=RESID)
        changed = (cache[RESID] != before[RESID]).any(-1)
        at_place = torch.arange(changed.shape[1]) == place[:, None]
        expected = {"there": at_place, "elsewhere": ~at_place, "everywhere": torch.ones_like(at_place)}
        assert torch.equal(changed, expected[stands])


def test_a_dictionary_of_another_model_or_site_is_refused(clip: HookedCLIP) -> None:
    other = cliplens.wrap(tiny_model(seed=1), tokenizer=TinyTokenizer())
    with pytest.raises(MismatchError, match="the model"):
        other.add_sae(dictionary(clip, "hook_embedding", 32))
    stock = standard("vision.hook_embedding", 32, metadata={"weights_sha256": clip.identity.weights_sha256})
    clip.add_sae(stock)
    clip.reset_saes()
    with pytest.raises(MismatchError, match="weights"):
        other.add_sae(stock)
    with pytest.raises(MismatchError, match="site"):
        clip.add_sae(Dictionary(standard("hook_embedding", 32)))
    with pytest.raises(InputError, match="Dictionary"):
        clip.add_sae("sae")
