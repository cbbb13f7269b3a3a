"""Name latents by asking a transformers model in a local folder; nothing is downloaded.

The environment variable `CLIPLENS_LOCAL_MODEL` holds the path of the folder. A vision-language model such as LLaVA
gives names from images and from captions, a language model only from captions.
"""

import base64
import io
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from cliplens.errors import InputError
from cliplens.records import Name
from cliplens_plugins.autointerp.language_model_namer import LanguageModelNamer
from cliplens_plugins.autointerp.questions import Backend, Messages, QuestionQueue, answers_folder

_LONGEST_ANSWER = 160
_VARIABLE = "CLIPLENS_LOCAL_MODEL"


class LocalBackend(Backend):
    """A transformers model in a local folder, which answers one question at a time by greedy decoding.

    Raises:
        InputError: CLIPLENS_LOCAL_MODEL is not set, or transformers cannot open a model in the folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or _named_folder()
        self.model, self.where = self._folder.name, f"the model in {self._folder}"
        self.identity = _fingerprint(self._folder)
        self._lock = threading.Lock()
        self.sees, self._reader, self._model = _opened(self._folder)

    def reply(self, messages: Messages) -> str:
        """Return the greedy continuation of the chat."""
        import torch

        with self._lock, torch.no_grad():
            given = self._given(messages).to(self._model.device)
            made = self._model.generate(**given, max_new_tokens=_LONGEST_ANSWER, do_sample=False)
        new = made[0, given["input_ids"].shape[1] :]
        return str(self._reader.decode(new, skip_special_tokens=True))

    def _given(self, messages: Messages) -> Any:
        chat = [_turn(m, pictures=self.sees) for m in messages]
        if getattr(self._reader, "chat_template", None) is None:
            return self._reader("\n\n".join(m["content"] for m in chat) + "\n\n", return_tensors="pt")
        return self._reader.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )


@dataclass(frozen=True)
class TransformersNamer(LanguageModelNamer):
    """Name latents by asking a local model, once per latent and modality."""

    name: ClassVar[str] = "transformers"
    environment: ClassVar[tuple[str, ...]] = (_VARIABLE,)
    give_up_after: int = 20
    """Number of unreadable answers in a row that stop the run."""

    def queue(self) -> tuple[QuestionQueue[Name], Backend]:
        """Open the model in the folder CLIPLENS_LOCAL_MODEL."""
        backend = LocalBackend()
        queue = QuestionQueue[Name](self.name, backend, cache=answers_folder(), give_up_after=self.give_up_after)
        return queue, backend


def _named_folder() -> Path:
    named = os.environ.get(_VARIABLE)
    if not named or not Path(named).is_dir():
        raise InputError(
            expected=f"the path of a folder with a transformers model in {_VARIABLE}",
            found=f"{named!r}, which is no folder" if named else "no value",
            fix=f"set the environment variable, for example {_VARIABLE}=models/llava-1.5-7b",
        )
    return Path(named)


def _fingerprint(folder: Path) -> str:
    """Identify the model by its folder and by the sizes and modification times of its files."""
    files = sorted(f for f in folder.iterdir() if f.is_file())
    return json.dumps([str(folder.resolve()), [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]])


def _opened(folder: Path) -> tuple[bool, Any, Any]:
    """Return whether the model accepts images, its processor or tokenizer, and the model in eval mode."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    try:
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        sees = kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        of_reader, of_model = (
            (AutoProcessor, AutoModelForImageTextToText) if sees else (AutoTokenizer, AutoModelForCausalLM)
        )
        reader = of_reader.from_pretrained(folder, local_files_only=True)
        model = of_model.from_pretrained(folder, local_files_only=True, dtype="auto").eval()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            expected=f"a language or vision-language model of transformers in {folder}",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            fix="use a folder written by save_pretrained, with its tokenizer or processor",
        ) from error
    return sees, reader, model.to("cuda" if torch.cuda.is_available() else "cpu")


def _turn(message: dict[str, Any], *, pictures: bool) -> dict[str, Any]:
    """Convert a message for a chat template: content parts for models that accept images, plain text for others."""
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not pictures:
        return {"role": message["role"], "content": "\n".join(p["text"] for p in parts if p["type"] == "text")}
    shown = [{"type": "image", "image": _picture(p)} if p["type"] == "image_url" else p for p in parts]
    return {"role": message["role"], "content": shown}


def _picture(part: dict[str, Any]) -> Image.Image:
    encoded = part["image_url"]["url"].partition("base64,")[2]
    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
