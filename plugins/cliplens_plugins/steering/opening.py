"""Opening diffusers pipelines: folders, single files, and what is put on them (LoRA, IP-Adapter, scheduler)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cliplens import api
from cliplens.api import DTYPES
from cliplens.errors import InputError
from cliplens.files import read_json
from cliplens_plugins.steering.request import SteeringRequest

_OF_KIND = {
    "xl_base": "StableDiffusionXLPipeline",
    "xl_refiner": "StableDiffusionXLImg2ImgPipeline",
    "xl_inpaint": "StableDiffusionXLInpaintPipeline",
    "inpainting": "StableDiffusionInpaintPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "sd35": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
}
"""How the kind of a single file begins, as diffusers infers it -> the class; others are Stable Diffusion 1 or 2."""


def open_pipeline(request: SteeringRequest) -> Any:
    """Open the diffusers pipeline of a request, weights from safetensors only, with all that goes on it.

    Raises:
        InputError: there is no pipeline, its weights cannot be read, or what goes on it does not fit;
            schedulers that it takes are listed.
    """
    path = request.pipeline
    assert path is not None
    pipeline = _from_file(request, path) if path.is_file() else _from_folder(request, path)
    if request.scheduler is not None:
        pipeline.scheduler = _scheduler(pipeline, request.scheduler)
    if request.lora is not None:
        _put_lora(pipeline, request.lora)
    if request.ip_adapter is not None:
        _put_ip_adapter(pipeline, request.ip_adapter)
    pipeline.set_progress_bar_config(disable=None)  # in a terminal only
    return pipeline.to(api.pick_device(None))


def _from_folder(request: SteeringRequest, path: Path) -> Any:
    import diffusers

    if not (path / "model_index.json").is_file():
        raise InputError(
            expected="a folder with a model_index.json, as diffusers saves pipelines",
            found=str(path),
            fix="pass the folder that pipeline.save_pretrained wrote",
        )
    options: dict[str, Any] = {"dtype": DTYPES[request.dtype], "local_files_only": True, "use_safetensors": True}
    options |= {"variant": request.variant or _variant(path), **dict.fromkeys(_left_out(path))}
    return _opened(
        lambda: diffusers.DiffusionPipeline.from_pretrained(str(path), **options),
        f"a diffusers pipeline whose weights are in safetensors files in {path}",
        "save the pipeline again with pipeline.save_pretrained(folder, safe_serialization=True)",
    )


def _from_file(request: SteeringRequest, path: Path) -> Any:
    """Open a checkpoint that holds all networks in one file."""
    import diffusers

    if path.suffix != ".safetensors":
        raise InputError(
            expected="a single-file checkpoint in safetensors",
            found=str(path),
            fix="convert the file to .safetensors, or save a folder with pipeline.save_pretrained",
        )
    options: dict[str, Any] = {"dtype": DTYPES[request.dtype]}
    if request.config is not None:
        options |= {"config": str(request.config), "local_files_only": True}
    kind = _kind_of_folder(request.config) if request.config is not None else None
    return _opened(
        lambda: getattr(diffusers, kind or _kind_of_file(path)).from_single_file(str(path), **options),
        f"a checkpoint of Stable Diffusion, XL, 3 or Flux in {path}, and the configs that belong to it",
        "give --config FOLDER, a folder with model_index.json, the tokenizer and the config.json of each network",
    )


def _kind_of_folder(config: Path) -> str:
    if not (config / "model_index.json").is_file():
        raise InputError(
            expected="a folder with a model_index.json for --config",
            found=str(config),
            fix="give the folder of a pipeline of the same kind, with or without weights",
        )
    return str(read_json(config / "model_index.json")["_class_name"])


def _kind_of_file(path: Path) -> str:
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type, load_single_file_checkpoint

    kind = infer_diffusers_model_type(load_single_file_checkpoint(str(path)))
    return next((name for start, name in _OF_KIND.items() if kind.startswith(start)), "StableDiffusionPipeline")


def _scheduler(pipeline: Any, name: str) -> Any:
    """Return a scheduler by name, such as euler or EulerDiscreteScheduler, configured as the pipeline's own."""
    own = pipeline.scheduler
    classes = {kind.__name__: kind for kind in (*getattr(own, "compatibles", ()), type(own))}
    short = {_short(known): kind for known, kind in classes.items()}
    found = short.get(_short(name))
    if found is None:
        raise InputError(
            expected=f"a scheduler that {type(pipeline).__name__} takes",
            found=repr(name),
            fix=f"give one of {', '.join(sorted(short))}",
        )
    return found.from_config(own.config)


def _short(name: str) -> str:
    return name.casefold().removesuffix("scheduler").removesuffix("discrete").replace("-", "").replace("_", "")


def _put_lora(pipeline: Any, path: Path) -> None:
    """Load a LoRA and refuse one of which nothing fits: diffusers would go on without it."""
    if not hasattr(pipeline, "load_lora_weights"):
        raise _does_not_take(pipeline, "--lora")
    where, name = _weights_of(path, "--lora")
    _opened(
        lambda: pipeline.load_lora_weights(str(where), weight_name=name, local_files_only=True, use_safetensors=True),
        f"a LoRA for {type(pipeline).__name__} in {path}",
        "give the LoRA of this kind of pipeline, as pipeline.save_lora_weights writes it",
    )
    if not pipeline.get_active_adapters():
        raise InputError(
            expected=f"a LoRA for {type(pipeline).__name__}",
            found=f"{path}, of which no weight fits",
            fix="give the LoRA of this kind of pipeline",
        )


def _put_ip_adapter(pipeline: Any, path: Path) -> None:
    if not hasattr(pipeline, "load_ip_adapter"):
        raise _does_not_take(pipeline, "--ip-adapter")
    where, name = _weights_of(path, "--ip-adapter")
    has_encoder = getattr(pipeline, "image_encoder", None) is not None
    if not has_encoder and not (where / "image_encoder" / "config.json").is_file():
        raise InputError(
            expected=f"an image encoder for the IP-Adapter in {where / 'image_encoder'}",
            found="none there and none in the pipeline",
            fix="put the image encoder that belongs to the IP-Adapter there, as transformers saves it",
        )
    _opened(
        lambda: pipeline.load_ip_adapter(str(where), subfolder="", weight_name=name, local_files_only=True),
        f"an IP-Adapter for {type(pipeline).__name__} in {path}",
        "give the safetensors file of an IP-Adapter for this kind of pipeline",
    )


def _weights_of(path: Path, option: str) -> tuple[Path, str]:
    """Return folder and name of the one safetensors file that a path is or holds."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    if len(files) != 1 or files[0].suffix != ".safetensors":
        found = ", ".join(f.name for f in files) or f"no such file in {path}"
        raise InputError(
            expected=f"one safetensors file for {option}", found=found, fix=f"give {option} the file itself"
        )
    return files[0].parent, files[0].name


def _does_not_take(pipeline: Any, option: str) -> InputError:
    return InputError(
        expected=f"a pipeline that takes {option}", found=type(pipeline).__name__, fix=f"leave {option} out"
    )


def _opened(read: Callable[[], Any], expected: str, fix: str) -> Any:
    try:
        return read()
    except (OSError, ValueError, AttributeError, ImportError, KeyError, RuntimeError, TypeError) as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InputError(expected=expected, found=found, fix=fix) from error


def _left_out(path: Path) -> list[str]:
    """Return the parts that a pipeline was saved without, such as T5; diffusers requires their names."""
    parts = read_json(path / "model_index.json")
    return [name for name, value in parts.items() if isinstance(value, list) and value and value[0] is None]


def _variant(path: Path) -> str | None:
    """Return the variant of the weights, such as fp16, if the folder holds only that one; else None."""
    names = [p.name for p in path.glob("*/*.safetensors")]
    variants = {name.split(".")[1] for name in names if name.count(".") > 1 and "-of-" not in name.split(".")[1]}
    plain = any(name.count(".") == 1 for name in names)
    return variants.pop() if len(variants) == 1 and not plain else None
