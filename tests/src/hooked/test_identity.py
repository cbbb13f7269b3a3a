"""Identities: equal for equal weights, different for anything else."""

import torch
from torch import nn
from torchvision import transforms

from cliplens.hooked import identity_of, tokenizer_sha256, weights_sha256
from cliplens.hooked.identity import adapters_in, description
from support.tiny import TinyTokenizer, tiny_model, tiny_preprocess


def test_equal_weights_have_equal_hashes_whatever_the_object() -> None:
    first, second = tiny_model(), tiny_model()
    assert weights_sha256(first) == weights_sha256(second) == weights_sha256(first.double().float())
    with torch.no_grad():
        second.logit_scale.add_(1e-6)
    assert weights_sha256(first) != weights_sha256(second)
    assert weights_sha256(first) != weights_sha256(first.bfloat16())


def test_transforms_are_described_without_addresses() -> None:
    def make() -> transforms.Compose:
        return transforms.Compose([transforms.Resize(32), transforms.Lambda(lambda x: x), transforms.ToTensor()])

    assert description(make()) == description(make())
    assert "0x" not in description(make())
    assert "Resize(size=32" in description(make())
    assert description(tiny_preprocess).endswith("tiny.tiny_preprocess")
    assert description(TinyTokenizer()) == description(TinyTokenizer())
    assert description(None) == ""


def test_tokenizers_with_other_ids_have_other_hashes() -> None:
    class Shifted(TinyTokenizer):
        sot_token_id = 46

        def __call__(self, captions: list[str]) -> torch.Tensor:
            return super().__call__(captions).clamp_max(46)

    assert tokenizer_sha256(TinyTokenizer()) == tokenizer_sha256(TinyTokenizer()) != tokenizer_sha256(Shifted())
    assert tokenizer_sha256(None) == ""


def test_adapters_left_unmerged_are_named() -> None:
    model = tiny_model()
    assert adapters_in(model) is None
    model.visual.conv1.lora_A = nn.Linear(2, 2)
    identity = identity_of(model, name="tuned", pretrained="file", preprocess="as is", tokenizer=None)
    assert identity.adapters == "LoRA"
    assert identity.preprocess == "as is"
