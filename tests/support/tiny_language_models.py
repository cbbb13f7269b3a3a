"""Tiny language models of transformers in a folder: a Llama whose weights spell one answer, and a random LLaVA."""

import itertools
from pathlib import Path
from typing import Any

import torch

ANSWER = ("ANSWER", '{"name":', '"something', 'red",', '"confidence":', "0.5}", "</s>")
"""The words it says one after the other, whatever it was asked."""
CHAT = "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}ANSWER{% endif %}"


def spelling(folder: Path, chain: tuple[str, ...] = ANSWER, template: str | None = CHAT) -> Path:
    """A Llama in which every word is followed by one other: embeddings are one-hot, layers add nothing."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", *dict.fromkeys(chain)]
    raw = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = template
    size = 16
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=4096, eos_token_id=words.index("</s>"), pad_token_id=words.index("</s>"),
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.fill_(1.0 if "norm" in name else 0.0)
        model.model.embed_tokens.weight.copy_(torch.eye(len(words), size))
        for word, after in itertools.pairwise(chain):
            model.lm_head.weight[words.index(after), words.index(word)] = 1.0
        model.lm_head.weight[words.index(chain[1]), 0] = 1.0  # after a word it does not know it begins
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def seeing(folder: Path, layers: int = 2) -> Path:
    """A tiny random LLaVA with its processor; `layers` are those of its vision tower."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )  # fmt: skip

    words = ["<unk>", "</s>", "<image>", "USER:", "ASSISTANT:", "a", "b"]
    raw = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", eos_token="</s>", pad_token="</s>",
        additional_special_tokens=["<image>"], extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    template = (
        "{% for m in messages %}USER: {% for p in m['content'] %}"
        "{% if p['type'] == 'image' %}<image> {% else %}{{ p['text'] }} {% endif %}{% endfor %}{% endfor %} ASSISTANT:"
    )
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    language = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=4096, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=language, image_token_index=2)
    LlavaForConditionalGeneration(config).eval().save_pretrained(folder)
    images: Any = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        images, tokenizer, patch_size=16, vision_feature_select_strategy="default", chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder
