"""A chat endpoint on this machine: a real HTTP server, slow, failing, rate-limiting or talking nonsense on request."""

import contextlib
import json
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.evidence import WORDS


class Server(ThreadingHTTPServer):
    """Answers chat requests by counting the words of the captions; `script` says how each try of a question goes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.tries: Counter[str] = Counter()
        self.script: list[str] = []
        self.keys: set[str] = set()
        self.answered = 0
        self.fails_after: int | None = None


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
        if self.server.fails_after is not None and self.server.answered >= self.server.fails_after:
            what = "fail"
        if what == "slow":
            time.sleep(0.4)
        if what == "limit":
            self._send(429, {"error": {"message": "slow down"}}, {"retry-after-ms": "5"})
        elif what == "fail":
            self._send(500, {"error": {"message": "oops"}}, {"retry-after-ms": "5"})
        elif what == "malformed":
            self._send(200, _reply("I think it may be a dog?"))
        elif what == "few":
            self._send(200, _reply('{"fits": [50]}'))
        elif what == "cut":
            self._send_bytes(200, b'{"choices": [')
        else:
            self.server.answered += 1
            self._send(200, _reply(json.dumps(_answer(asked))))

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


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    parts = [p.get("text", "") for p in asked["messages"][1]["content"]]
    if parts[0].startswith("Description: "):
        return {"fits": _fits(json.loads(parts[0].removeprefix("Description: ")), parts[1:])}
    return {"name": _common(asked), "confidence": 0.9}


def _fits(name: str, parts: list[str]) -> list[int]:
    """90 for captions that hold the name, 10 for others, 50 for pictures, which this server cannot see."""
    starts = [n for n, part in enumerate(parts) if part.startswith("Sample ")]
    said = [parts[n + 1] for n in starts]
    return [90 if name in s.strip('"').split() else 10 if s else 50 for s in said]


def _common(asked: dict[str, Any]) -> str | None:
    """The word that every shown caption holds; None for pictures, which this server cannot see."""
    parts = [p.get("text", "") for p in asked["messages"][1]["content"]]
    shown = parts[1 : parts.index("It is silent on:")]
    common = [w for w in WORDS if shown and all(w in s.strip('"').split() for s in shown)]
    return common[0] if len(common) == 1 else None


def environment(server: Server, cache: str) -> dict[str, str]:
    """What a user sets to be answered by it."""
    return {
        "OPENAI_API_KEY": "not-a-key",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1",
        "CLIPLENS_ENDPOINT_MODEL": "tiny",
        "CLIPLENS_ENDPOINT_CACHE": cache,
    }
