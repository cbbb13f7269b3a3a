"""The endpoint namer against a real HTTP server on this machine: slow, failing, rate-limiting and malformed answers."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cliplens import registry
from cliplens.contracts import Namer
from cliplens.errors import InputError, MissingExtraError, PluginError
from cliplens.records import Evidence
from cliplens_plugins.autointerp.endpoint import EndpointNamer
from cliplens_plugins.autointerp.name_questions import NameQuestion, name_questions, read_name
from cliplens_plugins.autointerp.questions import without_password
from support.chat_server import Handler, Server, environment
from support.evidence import WORDS, planted_evidence
from support.served import serving

pytest.importorskip("openai", reason="needs the extra 'endpoint'")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    with serving(Server()) as running:
        for name, value in environment(running, str(tmp_path / "cache")).items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return planted_evidence(n=400)


def texts(names: list[Any]) -> list[str | None]:
    return [n.text for n in names]


def test_the_entry_point_names_the_namer() -> None:
    assert isinstance(registry.find("namers", "endpoint").make(Namer), EndpointNamer)


def test_names_come_back_and_a_second_run_asks_nothing(server: Server, evidence: Evidence) -> None:
    names = EndpointNamer().from_captions(evidence)
    assert texts(names) == [*WORDS, None]
    asked = len(server.requests)
    assert asked == len(WORDS)
    assert server.keys == {"Bearer not-a-key"}
    assert texts(EndpointNamer().from_captions(evidence)) == [*WORDS, None]
    assert len(server.requests) == asked


@pytest.mark.parametrize("trouble", [["limit"], ["fail", "limit"], ["malformed"], ["cut"], ["malformed", "malformed"]])
def test_failed_requests_are_repeated_until_every_latent_has_a_name(
    server: Server, evidence: Evidence, trouble: list[str]
) -> None:
    server.script = trouble
    assert texts(EndpointNamer(retries=3).from_captions(evidence)) == [*WORDS, None]


def test_an_endpoint_that_is_down_stops_the_run_and_keeps_what_it_has(
    server: Server, evidence: Evidence, tmp_path: Path
) -> None:
    half = EndpointNamer(parallel=1)
    original = Handler.do_POST
    seen = 0

    def breaks(self: Handler) -> None:
        nonlocal seen
        seen += 1
        if seen > 4:
            self.server.script = ["fail"] * 99
        original(self)

    Handler.do_POST = breaks  # type: ignore[method-assign]
    try:
        with pytest.raises(PluginError, match=r"failures in a row.*then run again: 4 new answers"):
            EndpointNamer(parallel=1, retries=0, give_up_after=3).from_captions(evidence)
    finally:
        Handler.do_POST = original  # type: ignore[method-assign]
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 4
    server.script, before = [], len(server.requests)
    assert texts(half.from_captions(evidence)) == [*WORDS, None]
    assert len(server.requests) - before == len(WORDS) - 4


def test_one_unusable_answer_costs_one_name(server: Server, evidence: Evidence) -> None:
    server.script = ["malformed"] * 99
    names = EndpointNamer(retries=1, give_up_after=99).from_captions(evidence)
    assert texts(names) == [None] * evidence.d_sae
    assert "no usable answer" in names[0].evidence


def test_a_slow_endpoint_runs_into_the_timeout_and_not_forever(server: Server, evidence: Evidence) -> None:
    server.script = ["slow"] * 9
    quick = EndpointNamer(timeout=0.1, retries=0, give_up_after=99)
    assert texts(quick.from_captions(evidence)) == [None] * evidence.d_sae


def test_pictures_are_sent_as_data_urls(server: Server, evidence: Evidence) -> None:
    EndpointNamer().from_images(evidence)
    parts = [p for p in server.requests[0]["messages"][1]["content"] if p["type"] == "image_url"]
    assert len(parts) == 14
    assert all(p["image_url"]["url"].startswith("data:image/png;base64,") for p in parts)


def test_the_rate_limit_is_kept(server: Server, evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLENS_ENDPOINT_PER_MINUTE", "1200")
    started = time.monotonic()
    EndpointNamer().from_captions(evidence)
    assert time.monotonic() - started >= (len(WORDS) - 1) * 0.05


def test_the_cost_is_logged_before_the_first_question(
    server: Server, evidence: Evidence, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CLIPLENS_ENDPOINT_PRICE", "2.5")
    EndpointNamer().from_captions(evidence)
    assert "10 questions to tiny (0 more are cached)" in caplog.text
    assert "per million" in caplog.text


def test_without_a_key_nothing_is_sent(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("CLIPLENS_ENDPOINT_MODEL", "tiny")
    with pytest.raises(InputError, match=r"found no OPENAI_API_KEY"):
        EndpointNamer().from_captions(evidence)


@pytest.mark.parametrize("pace", ["fast", "0", "-1", "nan"])
def test_a_rate_limit_that_is_no_positive_number_is_refused(
    server: Server, evidence: Evidence, monkeypatch: pytest.MonkeyPatch, pace: str
) -> None:
    monkeypatch.setenv("CLIPLENS_ENDPOINT_PER_MINUTE", pace)
    with pytest.raises(InputError, match=r"above 0 in CLIPLENS_ENDPOINT_PER_MINUTE.*Fix: set the variable to a number"):
        EndpointNamer().from_captions(evidence)
    assert not server.requests


def test_without_the_client_it_says_what_to_install(
    server: Server, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cliplens\[endpoint\]'"):
        EndpointNamer().from_captions(evidence)


def test_questions_hold_no_pictures_until_they_are_sent(
    server: Server, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: set[int] = set()
    made = most = 0

    class Held(list):  # type: ignore[type-arg]
        def __del__(self) -> None:
            alive.discard(id(self))

    def held(question: NameQuestion) -> Any:
        nonlocal made, most
        messages = Held(original(question))
        made += 1
        alive.add(id(messages))
        most = max(most, len(alive))
        return messages

    original = NameQuestion.messages
    monkeypatch.setattr(NameQuestion, "messages", held)
    EndpointNamer(parallel=1).from_images(evidence)
    assert made == 2 * len(WORDS)  # once to count what it costs, once to send
    assert most <= 3


def test_silent_samples_are_silent(evidence: Evidence) -> None:
    for question in name_questions(evidence, "text", shown=8, others=6, at_least=3):
        word = WORDS[question.latent]
        assert all(word in (p.caption or "").split() for p in question.shown)
        assert not any(word in (p.caption or "").split() for p in question.others)


@pytest.mark.parametrize("text", ["", "no", "{", '{"nam": 1}', "[1]", '{"name": "a", "confidence": "high"}'])
def test_answers_without_a_name_are_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_name(text)


def test_answers_are_read_through_chatter_and_trimmed() -> None:
    name = read_name('Sure! ```json\n{"name": "  a  red\\ncircle ", "confidence": 7}\n```')
    assert (name.text, name.score) == ("a red circle", 1.0)
    assert read_name('{"name": null, "confidence": 0}').text is None
    assert len(read_name(json.dumps({"name": "x" * 500, "confidence": 1})).text or "") == 80


def test_passwords_of_an_endpoint_are_not_printed(
    server: Server, evidence: Evidence, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://me:hunter2@127.0.0.1:{server.server_port}/v1?key=hunter3")
    server.script = ["fail"] * 99
    with pytest.raises(PluginError, match=r"\*\*\*@127\.0\.0\.1") as caught:
        EndpointNamer(retries=0, give_up_after=1).from_captions(evidence)
    assert "hunter" not in str(caught.value) + caplog.text
    assert without_password("no answer from ftp://a:b@c/d?e=f today") == "no answer from ftp://***@c/d?*** today"


def test_a_damaged_answer_in_the_cache_is_asked_again(server: Server, evidence: Evidence, tmp_path: Path) -> None:
    EndpointNamer().from_captions(evidence)
    for file in (tmp_path / "cache").rglob("*.json"):
        file.write_text(file.read_text()[:10])
    assert texts(EndpointNamer().from_captions(evidence)) == [*WORDS, None]
