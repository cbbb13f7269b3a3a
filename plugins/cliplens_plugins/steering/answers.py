"""Generate the answers of a steered multimodal language model over doses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cliplens import api
from cliplens.errors import InputError
from cliplens_plugins.steering.context import steer
from cliplens_plugins.steering.given import picture_at

_LONGEST = 40
_TOP = 5


def is_answering(folder: Path) -> bool:
    """Return whether a folder holds a transformers model that answers questions about pictures."""
    if not (folder / "config.json").is_file():
        return False
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    return kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


@dataclass(frozen=True)
class Answering:
    """A model that answers, with its processor."""

    processor: Any
    model: Any

    @classmethod
    def open(cls, folder: Path) -> "Answering":
        """Open the model of a folder, offline, on the best device."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, dtype="auto").eval()
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        return cls(processor, model.to(api.pick_device(None)))


def answers(
    folder: Path | Answering,
    questions: Sequence[str],
    images: Sequence[Path],
    steering: Any,
    doses: Sequence[float],
    *,
    site: str | None = None,
) -> list[dict[str, Any]]:
    """Return one row per sample and dose; the first dose must be 0.

    `answer` is the greedy answer, `next` the most likely next tokens with their log probabilities, and `changed` the
    Kullback-Leibler divergence of the next-token distribution from dose 0, in nats, at least 0.

    Raises:
        InputError: there are no images or no questions, or their numbers do not match.
    """
    asked = _paired(questions, images)
    opened = folder if isinstance(folder, Answering) else Answering.open(folder)
    processor, model = opened.processor, opened.model
    rows: list[dict[str, Any]] = []
    for question, path in asked:
        given = _given(processor, question, path).to(model.device)
        plain: Float[Tensor, " token"] | None = None
        for dose in doses:
            with torch.no_grad(), steer(model, steering.at_dose(dose), site=site) as movement:
                now = F.log_softmax(model(**given).logits[0, -1].double(), dim=-1)
                made = model.generate(**given, max_new_tokens=_LONGEST, do_sample=False)
            plain = now if plain is None else plain
            best = now.topk(min(_TOP, len(now)))
            likely = [
                f"{processor.decode([int(t)])!r} {float(v):.2f}" for t, v in zip(best.indices, best.values, strict=True)
            ]
            said = processor.decode(made[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
            changed = max(0.0, float(F.kl_div(now, plain, reduction="sum", log_target=True)))
            rows.append(
                {"image": path.name, "question": question, "dose": dose, "answer": str(said).strip()}
                | {"conditioning moved": movement.conditioning if movement.calls else 0.0}
                | {"changed": changed, "next": ", ".join(likely)}
            )
    return rows


def _paired(questions: Sequence[str], images: Sequence[Path]) -> list[tuple[str, Path]]:
    fits = questions and images and (len(questions) == len(images) or 1 in (len(questions), len(images)))
    if not fits:
        raise InputError(
            expected="as many questions as images, or one of either",
            found=f"{len(questions)} --prompt and {len(images)} --image",
            fix="pass for example --image cat.png --prompt 'What is this?'",
        )
    n = max(len(questions), len(images))
    return [(questions[i % len(questions)], images[i % len(images)]) for i in range(n)]


def _given(processor: Any, question: str, path: Path) -> Any:
    picture = picture_at(path)
    if getattr(processor, "chat_template", None) is None:
        return processor(images=picture, text=f"{processor.image_token}\n{question}", return_tensors="pt")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
