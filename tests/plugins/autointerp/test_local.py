"""Names by real transformers models in a folder: a tiny Llama whose weights spell one answer, and a tiny LLaVA."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cliplens import registry
from cliplens.contracts import Namer
from cliplens.errors import InputError, PluginError
from cliplens.records import Evidence
from cliplens_plugins.autointerp.local import LocalBackend, TransformersNamer
from support.evidence import planted_evidence

pytest.importorskip("transformers")
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


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return planted_evidence(n=300)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CLIPLENS_ENDPOINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_is_what_its_entry_point_says() -> None:
    assert isinstance(registry.find("namers", "transformers").make(Namer), TransformersNamer)


def test_a_language_model_names_from_captions_alone(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("CLIPLENS_LOCAL_MODEL", str(spelling(tmp_path / "llama")))
    names = TransformersNamer().from_captions(evidence)
    assert [n.text for n in names[:-1]] == ["something red"] * (len(names) - 1)
    assert names[-1].text is None
    assert names[0].score == 0.5
    assert names[0].evidence == "llama on its top text samples"
    assert [n.text for n in TransformersNamer().from_images(evidence)] == [None] * len(names)
    kept = list(cache.rglob("*.json"))
    assert len(kept) == len(names) - 1
    assert json.loads(kept[0].read_text())["model"] == "llama"


def test_a_model_without_a_chat_template_is_asked_plainly(tmp_path: Path) -> None:
    backend = LocalBackend(spelling(tmp_path / "plain", template=None))
    assert not backend.sees
    asked = [{"role": "system", "content": "Answer."}, {"role": "user", "content": [{"type": "text", "text": "What?"}]}]
    assert json.loads(backend.reply(asked)) == {"name": "something red", "confidence": 0.5}


def test_a_model_that_talks_nonsense_stops_the_run_and_says_so(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = spelling(tmp_path / "babble", ("ANSWER", "well", "perhaps", "</s>"))
    monkeypatch.setenv("CLIPLENS_LOCAL_MODEL", str(folder))
    with pytest.raises(PluginError, match=r"Expected answers from the model in .*babble\. Found 3 failures in a row"):
        TransformersNamer(give_up_after=3).from_captions(evidence)


@pytest.mark.parametrize("named", [None, "no-such-folder"])
def test_without_a_folder_it_says_what_to_set(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    monkeypatch.delenv("CLIPLENS_LOCAL_MODEL", raising=False)
    if named:
        monkeypatch.setenv("CLIPLENS_LOCAL_MODEL", named)
    with pytest.raises(InputError, match="Do set it, for example CLIPLENS_LOCAL_MODEL="):
        TransformersNamer().from_captions(evidence)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="Expected a language or vision-language model of transformers"):
        LocalBackend(tmp_path)


def seeing(folder: Path) -> Path:
    """A tiny random LLaVA with its processor."""
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
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
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


def test_a_model_that_sees_is_shown_the_pictures(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalBackend(seeing(tmp_path / "llava"))
    assert backend.sees
    seen: list[tuple[int, ...]] = []
    tower = backend._model.model.vision_tower
    tower.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(tuple((args[0] if args else kwargs["pixel_values"]).shape)),
        with_kwargs=True,
    )
    from cliplens_plugins.autointerp.prompt import questions

    asked = questions(evidence, "image", shown=3, others=2, at_least=3)[0]
    assert isinstance(backend.reply(asked.messages()), str)
    assert seen[0] == (5, 3, 32, 32)
