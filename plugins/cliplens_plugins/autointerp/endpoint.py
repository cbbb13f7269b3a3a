"""Names by a language or vision-language model behind an OpenAI-compatible endpoint, through the official client.

Set in the environment, never in a file: `OPENAI_API_KEY`, `OPENAI_BASE_URL` (both read by the client),
`CLIPLENS_ENDPOINT_MODEL`. Optional: `CLIPLENS_ENDPOINT_CACHE` (a folder; default in the user's cache folder),
`CLIPLENS_ENDPOINT_PER_MINUTE` (requests), `CLIPLENS_ENDPOINT_PRICE` (per million tokens, for the estimate).
"""

import os
from dataclasses import dataclass
from typing import Any, ClassVar

from cliplens.contracts import Namer
from cliplens.errors import InputError, MissingExtraError
from cliplens.records import Evidence, Name
from cliplens_plugins.autointerp.asking import Backend, Desk, Messages, answers_folder
from cliplens_plugins.autointerp.prompt import asked_names


class EndpointBackend(Backend):
    """A model behind an endpoint.

    Args:
        parallel: questions on their way at once.
        retries: tries after a failed request (by the client, with growing waits) and after an unreadable answer.
        timeout: seconds to wait for an answer.

    Raises:
        InputError: the model or the key is not in the environment.
    """

    def __init__(self, *, parallel: int = 4, retries: int = 4, timeout: float = 60.0) -> None:
        self.model = self.identity = _model()
        self.parallel, self.retries = parallel, retries
        try:
            from openai import OpenAI
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                expected="the official client of OpenAI-compatible endpoints",
                found=f"no module {error.name!r}",
                fix="run pip install 'cliplens[endpoint]'",
            ) from error

        self._client = OpenAI(max_retries=retries, timeout=timeout)
        self.where = f"the endpoint {self._client.base_url}"

    def reply(self, messages: Messages) -> str:
        """What the first choice says."""
        create: Any = self._client.chat.completions.create  # the client's types know only its own message classes
        reply = create(model=self.model, messages=messages, temperature=0.0)
        return (reply.choices[0].message.content if reply.choices else None) or ""


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
        return asked_names(evidence, "image", self._desk, self.shown, self.others, self.at_least)

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """From each latent's top captions."""
        return asked_names(evidence, "text", self._desk, self.shown, self.others, self.at_least)

    def _desk(self) -> tuple[Desk[Name], Backend]:
        backend = EndpointBackend(parallel=self.parallel, retries=self.retries, timeout=self.timeout)
        return endpoint_desk(self.name, backend, self.give_up_after), backend


def endpoint_desk(who: str, backend: Backend, give_up_after: int = 5) -> Desk[Any]:
    """A desk that keeps the pace the environment asks for."""
    asked = os.environ.get("CLIPLENS_ENDPOINT_PER_MINUTE") or "inf"
    try:
        per_minute = float(asked)
    except ValueError:
        per_minute = 0.0
    if not per_minute > 0:
        raise InputError(
            expected="a number of requests above 0 in CLIPLENS_ENDPOINT_PER_MINUTE",
            found=repr(asked),
            fix="give for example 60, or unset it for no limit",
        )
    return Desk(who, backend, cache=answers_folder(), per_minute=per_minute, give_up_after=give_up_after)


def _model() -> str:
    model = os.environ.get("CLIPLENS_ENDPOINT_MODEL")
    missing = [n for n in ("OPENAI_API_KEY", "CLIPLENS_ENDPOINT_MODEL") if not os.environ.get(n)]
    if model is None or missing:
        raise InputError(
            expected="the endpoint's model and key in the environment",
            found=f"no {' and no '.join(missing)}",
            fix="set them (and OPENAI_BASE_URL for an endpoint of your own), then run again",
        )
    return model
