"""Pipelines from disk with all that goes on them: scheduler, LoRA, IP-Adapter, precision, single files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cliplens.errors import InputError
from cliplens_plugins.steering.opening import open_pipeline
from cliplens_plugins.steering.request import SteeringRequest
from support import tiny_pipelines as tiny
from support import tiny_variants as variants
from support.single_file import save_single_file

pytest.importorskip("diffusers", reason="steering pipelines needs the extra [diffusion]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("opening")
    tiny.stable_diffusion().save_pretrained(path / "sd")
    return path


def opened(folder: Path, **options: Any) -> Any:
    given = {"out": folder, "pipeline": folder / "sd", "sae": folder, "edit": ("3=+4",), "prompts": ("a",), **options}
    return tiny.quiet(open_pipeline(SteeringRequest(**given)))


def drawn(pipeline: Any, **options: Any) -> np.ndarray:
    return tiny.picture(pipeline, "a red ring", height=32, width=32, **options)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("euler", "EulerDiscreteScheduler"),
        ("EulerAncestralDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
        ("dpm-solver-multistep", "DPMSolverMultistepScheduler"),
        ("lms", "LMSDiscreteScheduler"),
    ],
)
def test_schedulers_by_name(folder: Path, name: str, kind: str) -> None:
    found = opened(folder, scheduler=name).scheduler
    assert type(found).__name__ == kind
    assert found.config.beta_end == tiny.scheduler().config.beta_end, "configured as the pipeline's own"


def test_a_scheduler_it_does_not_take(folder: Path) -> None:
    with pytest.raises(InputError, match=r"ddim, .*euler"):
        opened(folder, scheduler="eulr")


def test_half_precision(folder: Path) -> None:
    assert opened(folder, dtype="bfloat16").unet.dtype == torch.bfloat16
    with pytest.raises(InputError, match="float16"):
        opened(folder, dtype="half")


def test_a_lora_changes_the_picture_and_one_that_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    plain = drawn(opened(folder))
    kept = variants.save_lora(tmp_path / "lora")
    assert np.abs(drawn(opened(folder, lora=kept)) - plain).max() > 1e-6
    with pytest.raises(InputError, match="LoRA"):
        opened(folder, lora=variants.save_lora(tmp_path / "other", fits=False))
    with pytest.raises(InputError, match="one safetensors file for --lora"):
        opened(folder, lora=tmp_path)


def test_an_ip_adapter_with_its_encoder(folder: Path, tmp_path: Path) -> None:
    adapter = variants.save_ip_adapter(tmp_path)
    tiny.tiny_image().save(tmp_path / "own.png")
    own = (tmp_path / "own.png",)
    found = opened(folder, ip_adapter=adapter, ip_images=own)
    pictures = [drawn(found, ip_adapter_image=tiny.tiny_image(seed)) for seed in (0, 1)]
    assert np.abs(pictures[0] - pictures[1]).max() > 1e-6
    (tmp_path / "image_encoder" / "config.json").unlink()
    with pytest.raises(InputError, match="an image encoder for the IP-Adapter"):
        opened(folder, ip_adapter=adapter, ip_images=own)


def test_a_single_file_draws_what_the_folder_draws(folder: Path, tmp_path: Path) -> None:
    pipeline = opened(folder)
    file = save_single_file(pipeline, tmp_path / "sd.safetensors")
    alone = opened(folder, pipeline=file, config=folder / "sd")
    np.testing.assert_allclose(drawn(alone), drawn(pipeline), atol=1e-5)


def test_single_files_that_cannot_be_opened_are_refused_in_words(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "old.ckpt").write_bytes(b"x")
    with pytest.raises(InputError, match="convert the file to"):
        opened(folder, pipeline=tmp_path / "old.ckpt")
    (tmp_path / "cut.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="--config FOLDER"):
        opened(folder, pipeline=tmp_path / "cut.safetensors", config=folder / "sd")
    with pytest.raises(InputError, match="for --config"):
        opened(folder, pipeline=tmp_path / "cut.safetensors", config=tmp_path)
