"""Asking a model in words: what is asked of an endpoint and of a model in a local folder alike.

Every usable answer is kept on disk under the hash of its question, so that a run that was stopped asks only what is
still open. One question that cannot be answered costs one answer; when several in a row fail, the run stops and says
how many answers are kept.
"""

import hashlib
import json
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from tqdm.auto import tqdm

from cliplens.errors import PluginError
from cliplens.files import atomic_write

log = logging.getLogger(__name__)
Messages = list[dict[str, Any]]
"""Chat messages in OpenAI's form; pictures as data URLs."""
Answer = TypeVar("Answer")


class Asked(ABC, Generic[Answer]):
    """A question. Its messages are made when they are sent: pictures of thousands of questions fit into no memory."""

    @abstractmethod
    def messages(self) -> Messages:
        """What is asked; always the same for the same question."""

    @abstractmethod
    def read(self, text: str) -> Answer:
        """What an answer says.

        Raises:
            ValueError, TypeError: it is no answer to this question.
        """


class Backend(ABC):
    """A model that answers."""

    model: str
    """Its name, for people."""
    identity: str
    """What tells it from other models of that name; part of every question's hash."""
    where: str
    """What a person would look at when it fails."""
    parallel: int = 1
    """Questions it takes at once."""
    sees: bool = True
    """Whether it takes pictures."""
    retries: int = 0
    """How often the same question is worth asking again when an answer cannot be read."""

    @abstractmethod
    def reply(self, messages: Messages) -> str:
        """The answer, whatever it says."""


class Desk(Generic[Answer]):
    """Where questions are sent from: cache, pace, retries and the count of failures.

    Args:
        who: asks, for the log.
        backend: answers.
        cache: folder of kept answers.
        per_minute: questions, at most.
        give_up_after: failures in a row that stop the run.
    """

    def __init__(
        self,
        who: str,
        backend: Backend,
        *,
        cache: Path,
        per_minute: float = float("inf"),
        give_up_after: int = 5,
    ) -> None:
        self._who, self._backend = who, backend
        self._cache, self._give_up_after = cache, give_up_after
        self._pause, self._next = 60.0 / per_minute, 0.0
        self._lock = threading.Lock()
        self._failures = self._kept = 0

    def ask_all(self, questions: Sequence[Asked[Answer]], *, what: str = "questions") -> list[Answer | None]:
        """The answers in order, None where there is none; what it will cost is said first.

        Raises:
            PluginError: several failures in a row.
        """
        if not questions:
            return []
        self._estimate(questions)
        with ThreadPoolExecutor(self._backend.parallel) as pool:
            return list(tqdm(pool.map(self.ask, questions), total=len(questions), desc=what, delay=2))

    def ask(self, question: Asked[Answer]) -> Answer | None:
        """The answer, from the cache or the model; None when there is no usable one."""
        messages = question.messages()
        file = self._file(messages)
        if file.exists():
            return question.read(json.loads(file.read_text(encoding="utf-8"))["answer"])
        try:
            text, answer = self._usable(question, messages)
        except Exception as error:
            self._count_failure(error)
            return None
        with self._lock:  # the same question may be asked twice
            with atomic_write(file) as partial:
                partial.write_text(json.dumps({"model": self._backend.model, "answer": text}), encoding="utf-8")
            self._failures, self._kept = 0, self._kept + 1
        return answer

    def _estimate(self, questions: Sequence[Asked[Answer]]) -> None:
        """Say what is about to be spent, before anything is."""
        asked = (q.messages() for q in questions)
        costs = [estimated_tokens(messages) for messages in asked if not self._file(messages).exists()]
        tokens = sum(costs)
        price = os.environ.get("CLIPLENS_ENDPOINT_PRICE")
        cost = "" if price is None else f", about {tokens / 1e6 * float(price):.2f} at {price} per million"
        log.warning(
            "%s: %d questions to %s (%d more answered before), about %d tokens%s",
            self._who, len(costs), self._backend.model, len(questions) - len(costs), tokens, cost,
        )  # fmt: skip

    def _usable(self, question: Asked[Answer], messages: Messages) -> tuple[str, Answer]:
        """An answer that can be read, asked again while it cannot."""
        for left in range(self._backend.retries, -1, -1):
            self._wait()
            try:
                # A body cut short raises ValueError in a client, as an answer that cannot be read does here.
                text = self._backend.reply(messages)
                return text, question.read(text)
            except (ValueError, TypeError):
                if not left:
                    raise
        raise AssertionError("the loop returns or raises")

    def _wait(self) -> None:
        """Keep the pace asked for."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._pause
        time.sleep(max(0.0, start - now))

    def _count_failure(self, error: Exception) -> None:
        log.warning("%s: a question failed: %s: %s", self._who, type(error).__name__, error)
        with self._lock:
            self._failures += 1
            failures, kept = self._failures, self._kept
        if failures >= self._give_up_after:
            raise PluginError(
                expected=f"answers from {self._backend.where}",
                found=f"{failures} failures in a row, the last {type(error).__name__}: {error}",
                fix=f"look at it and run again: {kept} new answers are kept in {self._cache}",
            ) from error

    def _file(self, messages: Messages) -> Path:
        digest = hashlib.sha256(json.dumps([self._backend.identity, messages], sort_keys=True).encode()).hexdigest()
        return self._cache / digest[:2] / f"{digest}.json"


def answers_folder() -> Path:
    """Where answers are kept: CLIPLENS_ENDPOINT_CACHE, or the user's cache folder."""
    return Path(os.environ.get("CLIPLENS_ENDPOINT_CACHE") or Path.home() / ".cache" / "cliplens" / "endpoint")


def estimated_tokens(messages: Messages) -> int:
    """About how many tokens a question costs: four characters a token, 255 for a picture of this size."""
    count = 0
    for message in messages:
        content: Sequence[dict[str, Any]] | str = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        count += sum(255 if p["type"] == "image_url" else len(p["text"]) // 4 + 1 for p in parts)
    return count
