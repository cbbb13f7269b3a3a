"""The endpoint namer against a real HTTP server on this machine: slow, failing, rate-limiting and malformed answers."""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cliplens import registry
from cliplens.contracts import Namer
from cliplens.errors import InputError, PluginError
from cliplens.records import Evidence
from cliplens_plugins.autointerp.endpoint import EndpointNamer
from cliplens_plugins.autointerp.prompt import questions, read_answer
from support.evidence import WORDS, planted_evidence

pytest.importorskip("openai", reason="needs the extra 'endpoint'")


class Server(ThreadingHTTPServer):
    """Answers chat requests by counting the words of the captions; `script` says how each try of a question goes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.tries: Counter[str] = Counter()
        self.script: list[str] = []
        self.keys: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = json.loads(body)
        self.server.requests.append(asked)
        self.server.keys.add(self.headers["Authorization"])
        turn = self.server.tries[body]
        self.server.tries[body] += 1
        what = self.server.script[turn] if turn < len(self.server.script) else "right"
        if what == "slow":
            time.sleep(0.4)
        if what == "limit":
            self._send(429, {"error": {"message": "slow down"}}, {"retry-after-ms": "5"})
        elif what == "fail":
            self._send(500, {"error": {"message": "oops"}}, {"retry-after-ms": "5"})
        elif what == "malformed":
            self._send(200, _reply("I think it may be a dog?"))
        elif what == "cut":
            self._send_bytes(200, b'{"choices": [')
        else:
            self._send(200, _reply(json.dumps({"name": _common(asked), "confidence": 0.9})))

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(content).encode(), headers)

    def _send_bytes(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who asked may have given up waiting
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing on the screen."""


def _reply(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def _common(asked: dict[str, Any]) -> str | None:
    """The word that every shown caption holds; None for pictures, which this server cannot see."""
    parts = [p.get("text", "") for p in asked["messages"][1]["content"]]
    shown = parts[1 : parts.index("It is silent on:")]
    common = [w for w in WORDS if shown and all(w in s.strip('"').split() for s in shown)]
    return common[0] if len(common) == 1 else None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key")
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{running.server_port}/v1")
    monkeypatch.setenv("CLIPLENS_ENDPOINT_MODEL", "tiny")
    monkeypatch.setenv("CLIPLENS_ENDPOINT_CACHE", str(tmp_path / "cache"))
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return planted_evidence(n=400)


def texts(names: list[Any]) -> list[str | None]:
    return [n.text for n in names]


def test_it_is_what_its_entry_point_says() -> None:
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
def test_trouble_costs_time_and_no_name(server: Server, evidence: Evidence, trouble: list[str]) -> None:
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
        with pytest.raises(
            PluginError, match=r"failures in a row.*Do look at the endpoint and run again: 4 new answers"
        ):
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


def test_the_pace_is_kept(server: Server, evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLENS_ENDPOINT_PER_MINUTE", "1200")
    started = time.monotonic()
    EndpointNamer().from_captions(evidence)
    assert time.monotonic() - started >= (len(WORDS) - 1) * 0.05


def test_the_cost_is_said_before_it_is_spent(
    server: Server, evidence: Evidence, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CLIPLENS_ENDPOINT_PRICE", "2.5")
    EndpointNamer().from_captions(evidence)
    assert "10 questions to tiny (0 more answered before)" in caplog.text
    assert "per million" in caplog.text


def test_without_a_key_nothing_is_sent(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("CLIPLENS_ENDPOINT_MODEL", "tiny")
    with pytest.raises(InputError, match=r"Found no OPENAI_API_KEY"):
        EndpointNamer().from_captions(evidence)


def test_silent_samples_are_silent(evidence: Evidence) -> None:
    for question in questions(evidence, "text", shown=8, others=6, at_least=3):
        word = WORDS[question.latent]
        assert all(word in (p.caption or "").split() for p in question.shown)
        assert not any(word in (p.caption or "").split() for p in question.others)


@pytest.mark.parametrize("text", ["", "no", "{", '{"nam": 1}', "[1]", '{"name": "a", "confidence": "high"}'])
def test_answers_without_a_name_are_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_answer(text)


def test_answers_are_read_through_chatter_and_trimmed() -> None:
    name = read_answer('Sure! ```json\n{"name": "  a  red\\ncircle ", "confidence": 7}\n```')
    assert (name.text, name.score) == ("a red circle", 1.0)
    assert read_answer('{"name": null, "confidence": 0}').text is None
    assert len(read_answer(json.dumps({"name": "x" * 500, "confidence": 1})).text or "") == 80
