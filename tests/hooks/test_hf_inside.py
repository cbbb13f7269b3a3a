"""The vision tower inside a folder of LLaVA opens alone and gives what it gives inside."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import cliplens
from cliplens.errors import InputError
from support.tiny_language_models import seeing


@torch.no_grad()
def test_the_tower_of_a_saved_llava(tmp_path: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    seeing(tmp_path)
    clip = cliplens.load(f"hf:{tmp_path}", device="cpu")
    assert list(clip.towers) == ["vision"]
    assert clip.vision is not None
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = clip.vision.read(images, ["blocks.0.hook_resid_post"])["blocks.0.hook_resid_post"]
    whole = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    expected = whole.model.vision_tower(images, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_folder_with_part_of_the_tower_is_refused(tmp_path: Path) -> None:
    file = seeing(tmp_path) / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if "layers.1." not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"missing, such as .*layers\.1\."):
        cliplens.load(f"hf:{tmp_path}", device="cpu")
