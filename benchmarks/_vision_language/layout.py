"""The tiny model: Idefics 3 of transformers, a tokenizer of whole words, a processor and a chat template."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

SIDE, PATCH, WIDTH = 48, 8, 128
OPEN, NOTHING, ASK = '{"name": "', '{"name": null, "confidence": 0.0}', "<answer>"
FAKE, GLOBAL, IMAGE, END = "<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>"
CONFIDENCES = (0.5, 0.7, 0.9)
FIRES, SILENT = "The feature fires on:", "It is silent on:"
"""As `NameQuestion` asks."""
_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<image>{% else %} {{ p['text'] }} {% endif %}{% endfor %}{% endif %}{% endfor %}"
    "<answer>"
)
"""The model was trained for one question, so the system message is left out."""


def closed(confidence: float) -> str:
    """Return the end of an answer, one token."""
    return f'", "confidence": {confidence}}}'


def tokenizer_of(words: Sequence[str]) -> Any:
    """Return a tokenizer of whole words, with the parts of an answer as tokens of their own."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", END, FAKE, GLOBAL, IMAGE, ASK]
    asked = [word for text in (FIRES, SILENT) for word in text.lower().replace(":", " :").split()]
    answers = [OPEN, NOTHING, *(closed(c) for c in CONFIDENCES)]
    known = dict.fromkeys([*special, *answers, '"', *asked, *sorted(words)])
    raw = Tokenizer(models.WordLevel({word: n for n, word in enumerate(known)}, unk_token="<unk>"))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token=END,
        additional_special_tokens=[FAKE, GLOBAL, IMAGE, ASK],
    )


def processor_of(tokenizer: Any) -> Any:
    """Return a processor that shows every picture as one place of the language model."""
    from transformers import Idefics3ImageProcessor, Idefics3Processor

    size = {"longest_edge": SIDE}
    images = Idefics3ImageProcessor(size=size, max_image_size=size, do_image_splitting=False)
    return Idefics3Processor(images, tokenizer, image_seq_len=1, chat_template=_TEMPLATE)


def model_of(tokenizer: Any) -> Any:
    """Return an untrained model: two layers see, two layers read and answer."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3VisionConfig, LlamaConfig

    vision = Idefics3VisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    config = Idefics3Config(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        scale_factor=SIDE // PATCH,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Idefics3ForConditionalGeneration(config)
    nn.init.normal_(model.model.connector.modality_projection.proj.weight, std=0.02)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def seen(model: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Return one state per picture, from bytes [picture, 3, 48, 48]."""
    side = SIDE // PATCH
    mask = torch.ones(len(pictures), side, side, dtype=torch.bool)
    pixels = pictures.float() / 127.5 - 1
    states = model.model.vision_model(pixel_values=pixels, patch_attention_mask=mask).last_hidden_state
    found: torch.Tensor = model.model.connector(states)[:, 0]
    return found
