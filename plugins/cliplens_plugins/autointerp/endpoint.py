"""Names by a language or vision-language model behind an OpenAI-compatible endpoint, through the official client.

Set in the environment, never in a file: `OPENAI_API_KEY`, `OPENAI_BASE_URL` (both read by the client),
`CLIPLENS_ENDPOINT_MODEL`. Optional: `CLIPLENS_ENDPOINT_CACHE` (a folder; default in the user's cache folder),
`CLIPLENS_ENDPOINT_PER_MINUTE` (requests), `CLIPLENS_ENDPOINT_PRICE` (per million tokens, for the estimate).

Every usable answer is kept on disk under the hash of its question, so that a run that was stopped asks only what is
still open. One question that cannot be answered costs one name; when several in a row fail, the run stops and says how
many answers are kept.
"""

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tqdm.auto import tqdm

from cliplens.contracts import Namer
from cliplens.errors import InputError, PluginError
from cliplens.records import Evidence, Name
from cliplens.runfolder import written_whole
from cliplens.sites import Modality
from cliplens_plugins.autointerp.prompt import Question, estimated_tokens, questions, read_answer

log = logging.getLogger(__name__)
_FAILED = Name(None, float("nan"), "the endpoint gave no usable answer")


@dataclass(frozen=True)
class EndpointNamer(Namer):
    """Asks for one name per latent and modality; the score is the model's own confidence until the names are tested."""

    name: ClassVar[str] = "endpoint"
    shown: int = 8
    """Top samples in a question."""
    others: int = 6
    """Silent samples in a question."""
    at_least: int = 3
    """Top samples a latent must have."""
    parallel: int = 4
    """Questions on their way at once."""
    retries: int = 4
    """Tries after a failed request (by the client, with growing waits) and after an answer that cannot be read."""
    timeout: float = 60.0
    """Seconds to wait for an answer."""
    give_up_after: int = 5
    """Failures in a row that stop the run."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """From each latent's top images, sent as data URLs."""
        return self._names(evidence, "image")

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """From each latent's top captions."""
        return self._names(evidence, "text")

    def _names(self, evidence: Evidence, modality: Modality) -> list[Name]:
        asked = questions(evidence, modality, shown=self.shown, others=self.others, at_least=self.at_least)
        names = [Name(None, float("nan"))] * evidence.d_sae
        if not asked:
            return names
        desk = _Desk(self, _model())
        desk.estimate(asked)
        with ThreadPoolExecutor(self.parallel) as pool:
            answers = pool.map(desk.ask, asked)
            for question, answer in zip(asked, tqdm(answers, total=len(asked), desc="names", delay=2), strict=True):
                names[question.latent] = answer
        return names


class _Desk:
    """Where questions are sent from: cache, pace, retries and the count of failures."""

    def __init__(self, namer: EndpointNamer, model: str) -> None:
        from openai import OpenAI

        self._namer, self._model = namer, model
        self._client = OpenAI(max_retries=namer.retries, timeout=namer.timeout)
        self._cache = Path(
            os.environ.get("CLIPLENS_ENDPOINT_CACHE") or Path.home() / ".cache" / "cliplens" / "endpoint"
        )
        per_minute = float(os.environ.get("CLIPLENS_ENDPOINT_PER_MINUTE") or "inf")
        self._pause = 60.0 / per_minute
        self._next = 0.0
        self._lock = threading.Lock()
        self._failures = 0
        self._kept = 0

    def estimate(self, asked: Sequence[Question]) -> None:
        """Say what is about to be spent, before anything is."""
        open_ = [q for q in asked if not self._file(q.messages()).exists()]
        tokens = sum(map(estimated_tokens, open_))
        price = os.environ.get("CLIPLENS_ENDPOINT_PRICE")
        cost = "" if price is None else f", about {tokens / 1e6 * float(price):.2f} at {price} per million"
        log.warning(
            "%s: %d questions to %s (%d more answered before), about %d tokens%s",
            self._namer.name, len(open_), self._model, len(asked) - len(open_), tokens, cost,
        )  # fmt: skip

    def ask(self, question: Question) -> Name:
        """The answer, from the cache or the endpoint."""
        messages = question.messages()
        file = self._file(messages)
        if file.exists():
            return _kept_answer(file)
        try:
            text, name = self._usable(messages)
        except Exception as error:
            self._count_failure(error)
            return _FAILED
        with self._lock:  # two latents with the same samples ask the same question
            with written_whole(file) as partial:
                partial.write_text(json.dumps({"model": self._model, "answer": text}), encoding="utf-8")
            self._failures, self._kept = 0, self._kept + 1
        return replace(name, evidence=f"{self._model} on its top {question.modality} samples")

    def _usable(self, messages: list[dict[str, Any]]) -> tuple[str, Name]:
        """An answer that can be read, asked again while it cannot."""
        for left in range(self._namer.retries, -1, -1):
            self._wait()
            try:
                # A body cut short raises ValueError in the client, as an answer that cannot be read does here.
                text = self._reply(messages)
                return text, read_answer(text)
            except (ValueError, TypeError):
                if not left:
                    raise
        raise AssertionError("the loop returns or raises")

    def _reply(self, messages: list[dict[str, Any]]) -> str:
        create: Any = self._client.chat.completions.create  # the client's types know only its own message classes
        reply = create(model=self._model, messages=messages, temperature=0.0)
        return (reply.choices[0].message.content if reply.choices else None) or ""

    def _wait(self) -> None:
        """Keep the pace asked for."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._pause
        time.sleep(max(0.0, start - now))

    def _count_failure(self, error: Exception) -> None:
        log.warning("%s: a question failed: %s: %s", self._namer.name, type(error).__name__, error)
        with self._lock:
            self._failures += 1
            failures, kept = self._failures, self._kept
        if failures >= self._namer.give_up_after:
            raise PluginError(
                expected=f"answers from {self._client.base_url}",
                found=f"{failures} failures in a row, the last {type(error).__name__}: {error}",
                do=f"look at the endpoint and run again: {kept} new answers are kept in {self._cache}",
            ) from error

    def _file(self, messages: list[dict[str, Any]]) -> Path:
        digest = hashlib.sha256(json.dumps([self._model, messages], sort_keys=True).encode()).hexdigest()
        return self._cache / digest[:2] / f"{digest}.json"


def _kept_answer(file: Path) -> Name:
    content = json.loads(file.read_text(encoding="utf-8"))
    return replace(read_answer(content["answer"]), evidence=f"{content['model']}, answered before")


def _model() -> str:
    model = os.environ.get("CLIPLENS_ENDPOINT_MODEL")
    missing = [n for n in ("OPENAI_API_KEY", "CLIPLENS_ENDPOINT_MODEL") if not os.environ.get(n)]
    if model is None or missing:
        raise InputError(
            expected="the endpoint's model and key in the environment",
            found=f"no {' and no '.join(missing)}",
            do="set them (and OPENAI_BASE_URL for an endpoint of your own), then run again",
        )
    return model
