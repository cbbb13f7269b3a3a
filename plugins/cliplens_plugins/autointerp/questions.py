"""Ask a language model questions: a queue with a cache, retries and a rate limit, for any backend.

Every usable answer is cached on disk under the hash of its question, so a resumed run asks only the open questions. A
question without a usable answer is skipped. After several failures in a row the run stops and reports the number of
cached answers.
"""

import contextlib
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

from cliplens.errors import PluginError
from cliplens.faults import without_password
from cliplens.files import atomic_write
from cliplens.progress import Bar

log = logging.getLogger(__name__)
Messages = list[dict[str, Any]]
"""Chat messages in OpenAI's format, with images as data URLs."""
Answer = TypeVar("Answer")


class Question(ABC, Generic[Answer]):
    """A question to a language model. Its messages are built only when it is sent, because they hold images."""

    @abstractmethod
    def messages(self) -> Messages:
        """Return the chat messages of the question; equal questions return equal messages."""

    @abstractmethod
    def read(self, text: str) -> Answer:
        """Parse an answer.

        Raises:
            ValueError, TypeError: the text does not answer this question.
        """


class Backend(ABC):
    """A language or vision-language model that answers chat messages."""

    model: str
    """Name of the model, for messages."""
    identity: str
    """Identifier that distinguishes models of the same name; part of every question's hash."""
    where: str
    """Where the model runs, for error messages."""
    parallel: int = 1
    """Number of questions that may be asked at once."""
    sees: bool = True
    """Whether the model accepts images."""
    retries: int = 0
    """Number of times that a question is repeated if its answer cannot be parsed."""

    @abstractmethod
    def reply(self, messages: Messages) -> str:
        """Return the text of the model's answer."""


class QuestionQueue(Generic[Answer]):
    """Sends questions to a backend with a cache, a rate limit, retries and a limit on failures.

    Args:
        who: name of the plugin that asks, for the log.
        backend: the model that answers.
        cache: folder of cached answers.
        per_minute: maximum number of questions per minute.
        give_up_after: number of failures in a row that stop the run.
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

    def ask_all(self, questions: Sequence[Question[Answer]], *, what: str = "questions") -> list[Answer | None]:
        """Return the answers in order, None for questions without a usable one. Log the estimated cost first.

        Args:
            questions: the questions.
            what: label of the progress bar.

        Raises:
            PluginError: `give_up_after` questions failed in a row.
        """
        if not questions:
            return []
        self._estimate(questions)
        with ThreadPoolExecutor(self._backend.parallel) as pool:
            return list(Bar(pool.map(self.ask, questions), total=len(questions), desc=what))

    def ask(self, question: Question[Answer]) -> Answer | None:
        """Return the answer from the cache or the model; None without a usable one."""
        messages = question.messages()
        file = self._file(messages)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged: ask again
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

    def _estimate(self, questions: Sequence[Question[Answer]]) -> None:
        """Log the number of open questions and their estimated cost."""
        asked = (q.messages() for q in questions)
        costs = [estimated_tokens(messages) for messages in asked if not self._file(messages).exists()]
        tokens = sum(costs)
        price = os.environ.get("CLIPLENS_ENDPOINT_PRICE")
        cost = "" if price is None else f", about {tokens / 1e6 * float(price):.2f} at {price} per million"
        log.warning(
            "%s: %d questions to %s (%d more are cached), about %d tokens%s",
            self._who, len(costs), self._backend.model, len(questions) - len(costs), tokens, cost,
        )  # fmt: skip

    def _usable(self, question: Question[Answer], messages: Messages) -> tuple[str, Answer]:
        """Ask until the answer can be parsed, at most `retries` times more."""
        for left in range(self._backend.retries, -1, -1):
            self._wait()
            try:
                # A client raises ValueError for a truncated response, `read` for an answer that it cannot parse.
                text = self._backend.reply(messages)
                return text, question.read(text)
            except (ValueError, TypeError):
                if not left:
                    raise
        raise AssertionError("the loop returns or raises")

    def _wait(self) -> None:
        """Wait until the rate limit allows the next question."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._pause
        time.sleep(max(0.0, start - now))

    def _count_failure(self, error: Exception) -> None:
        said = without_password(str(error))
        log.warning("%s: a question failed: %s: %s", self._who, type(error).__name__, said)
        with self._lock:
            self._failures += 1
            failures, kept = self._failures, self._kept
        if failures >= self._give_up_after:
            raise PluginError(
                expected=f"answers from {self._backend.where}",
                found=f"{failures} failures in a row, the last {type(error).__name__}: {said}",
                fix=f"check that the model runs, then run again: {kept} new answers are cached in {self._cache}",
            ) from error

    def _file(self, messages: Messages) -> Path:
        digest = hashlib.sha256(json.dumps([self._backend.identity, messages], sort_keys=True).encode()).hexdigest()
        return self._cache / digest[:2] / f"{digest}.json"


def answers_folder() -> Path:
    """Return the folder of cached answers: CLIPLENS_ENDPOINT_CACHE, else a folder in the user's cache folder."""
    return Path(os.environ.get("CLIPLENS_ENDPOINT_CACHE") or Path.home() / ".cache" / "cliplens" / "endpoint")


def estimated_tokens(messages: Messages) -> int:
    """Estimate the number of tokens of a question: one per four characters, 255 per image."""
    count = 0
    for message in messages:
        content: Sequence[dict[str, Any]] | str = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        count += sum(255 if p["type"] == "image_url" else len(p["text"]) // 4 + 1 for p in parts)
    return count
