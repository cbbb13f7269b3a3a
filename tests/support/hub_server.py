"""A hub on this machine: keeps what huggingface_hub uploads over HTTP, and serves the files it was given."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Keeps what was created and committed, and serves `repositories`: "owner/name" -> {path: content}."""

    def __init__(self, repositories: dict[str, dict[str, bytes]] | None = None) -> None:
        self.repositories = repositories or {}
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.paths: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        if not self.server.repositories:
            self._send({})
            return
        path, _, _ = unquote(self.path).partition("?")
        if path.startswith("/api/models/"):
            self._send_listing(path.removeprefix("/api/models/"))
        else:
            self._send_file(path.lstrip("/"))

    do_HEAD = do_GET  # noqa: N815

    def _send_listing(self, path: str) -> None:
        repository = "/".join(path.split("/")[:2])
        files = self.server.repositories.get(repository)
        if files is None:
            self._refuse("RepoNotFound")
        elif "/tree/" in path:
            entries = [{"type": "file", "path": name, "size": len(c), "oid": _sha1(c)} for name, c in files.items()]
            self._send(entries)
        else:
            siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
            self._send({"id": repository, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})

    def _send_file(self, path: str) -> None:
        repository, _, inner = path.partition("/resolve/")
        content = self.server.repositories.get(repository, {}).get(inner.partition("/")[2])
        if content is None:
            self._refuse("EntryNotFound")
            return
        self.send_response(200)
        self.send_header("ETag", f'"{_sha1(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.paths.append(self.path)
        if self.path.endswith("/repos/create"):
            asked = json.loads(body)
            self.server.created.append(asked)
            self._send({"url": f"{self.server.url}/{asked.get('organization', 'me')}/{asked['name']}"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._send({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._send({"commitUrl": f"{self.server.url}/me/it/commit/0", "commitOid": "0" * 40})
        else:
            self._send({})

    def _send(self, content: Any) -> None:
        said = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        """Nothing on the screen."""


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
