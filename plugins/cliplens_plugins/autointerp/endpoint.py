"""Ask a model behind an OpenAI-compatible endpoint, through the official client, for names of latents.

The settings are read from the environment, never from a file: `OPENAI_API_KEY`, `OPENAI_BASE_URL` (both read by the
client), `CLIPLENS_ENDPOINT_MODEL`. Optional: `CLIPLENS_ENDPOINT_CACHE` (a folder; default in the user's cache
folder), `CLIPLENS_ENDPOINT_PER_MINUTE` (requests), `CLIPLENS_ENDPOINT_PRICE` (per million tokens, for the estimate).
"""

import os
from dataclasses import dataclass
from typing import Any, ClassVar

from cliplens.errors import InputError, MissingExtraError
from cliplens.faults import without_password
from cliplens.records import Name
from cliplens_plugins.autointerp.language_model_namer import LanguageModelNamer
from cliplens_plugins.autointerp.questions import Backend, Messages, QuestionQueue, answers_folder


class EndpointBackend(Backend):
    """A model behind an endpoint.

    Args:
        parallel: number of requests at once.
        retries: further tries after a failed request (by the client, with growing waits) and after an answer that
            cannot be read.
        timeout: seconds to wait for an answer.

    Raises:
        InputError: CLIPLENS_ENDPOINT_MODEL or OPENAI_API_KEY is not set.
        MissingExtraError: the package openai is not installed.
    """

    def __init__(self, *, parallel: int = 4, retries: int = 4, timeout: float = 60.0) -> None:
        self.model = self.identity = _model()
        self.parallel, self.retries = parallel, retries
        try:
            from openai import OpenAI
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                expected="the package openai, the client of OpenAI-compatible endpoints",
                found=f"no module {error.name!r}",
                fix="run pip install 'cliplens[endpoint]'",
            ) from error

        self._client = OpenAI(max_retries=retries, timeout=timeout)
        self.where = f"the endpoint {without_password(str(self._client.base_url))}"

    def reply(self, messages: Messages) -> str:
        """Return the text of the first choice in the response."""
        create: Any = self._client.chat.completions.create  # the client's types know only its own message classes
        reply = create(model=self.model, messages=messages, temperature=0.0)
        return (reply.choices[0].message.content if reply.choices else None) or ""


@dataclass(frozen=True)
class EndpointNamer(LanguageModelNamer):
    """Name latents by asking a model behind an endpoint, once per latent and modality."""

    name: ClassVar[str] = "endpoint"
    environment: ClassVar[tuple[str, ...]] = ("CLIPLENS_ENDPOINT_MODEL",)
    parallel: int = 4
    """Number of requests at once."""
    retries: int = 4
    """Further tries after a failed request (by the client, with growing waits) and after an unreadable answer."""
    timeout: float = 60.0
    """Seconds to wait for an answer."""
    give_up_after: int = 5
    """Number of failures in a row that stop the run."""

    def queue(self) -> tuple[QuestionQueue[Name], Backend]:
        """Open the endpoint that the environment variables describe."""
        backend = EndpointBackend(parallel=self.parallel, retries=self.retries, timeout=self.timeout)
        return endpoint_queue(self.name, backend, self.give_up_after), backend


def endpoint_queue(who: str, backend: Backend, give_up_after: int = 5) -> QuestionQueue[Any]:
    """Return a queue that respects the rate limit in CLIPLENS_ENDPOINT_PER_MINUTE.

    Raises:
        InputError: the limit is not a number above 0.
    """
    asked = os.environ.get("CLIPLENS_ENDPOINT_PER_MINUTE") or "inf"
    try:
        per_minute = float(asked)
    except ValueError:
        per_minute = 0.0
    if not per_minute > 0:
        raise InputError(
            expected="a number of requests above 0 in CLIPLENS_ENDPOINT_PER_MINUTE",
            found=repr(asked),
            fix="set the variable to a number such as 60, or unset it for no limit",
        )
    return QuestionQueue(who, backend, cache=answers_folder(), per_minute=per_minute, give_up_after=give_up_after)


def _model() -> str:
    model = os.environ.get("CLIPLENS_ENDPOINT_MODEL")
    missing = [n for n in ("OPENAI_API_KEY", "CLIPLENS_ENDPOINT_MODEL") if not os.environ.get(n)]
    if model is None or missing:
        raise InputError(
            expected="the endpoint's model and key in environment variables",
            found=f"no {' and no '.join(missing)}",
            fix="set them (and OPENAI_BASE_URL for your own endpoint), then run the command again",
        )
    return model
