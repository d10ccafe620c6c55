"""A Hugging Face hub on this machine: what the hub answers about repositories and their files, and how it fails.

Large files lie elsewhere, on the same server under another name, as the hub's do. Source, for the forms: the API as
huggingface_hub 1.0 to 2.4 calls it.
"""

from __future__ import annotations

import _socket
import hashlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import huggingface_hub.constants
import pytest

LARGE_BYTES = 2000
"""Files from here on are kept apart, and known by their SHA-256."""


@dataclass(frozen=True)
class Request:
    """One request: method and path, where it begins in the file, and whether it came with a token."""

    path: str
    start: int
    with_token: bool


@dataclass
class Hub:
    """Repositories by name and revision, each a mapping of paths to contents; and what goes wrong.

    `cut` lets answers with a file end after so many bytes, once for each entry of its list; `damaged` files arrive with
    one byte changed; `gone` ones are listed but not there; `status` is what everything is answered with.
    """

    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: dict[str, list[int]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    status: int | None = None
    ignores_ranges: bool = False
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """The hub's address."""
        return f"http://127.0.0.1:{self.port}"

    def add(self, repo: str, files: dict[str, bytes], revision: str = "1" * 40) -> str:
        """Publish files as the newest revision of a repository; return the revision."""
        self.repos.setdefault(repo, {})[revision] = files
        return revision

    def add_folder(self, repo: str, folder: Path, revision: str = "1" * 40) -> str:
        """Publish a folder."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return self.add(repo, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}, revision)

    def fetched(self, path: str) -> list[int]:
        """Return where each answer with the content of a file began."""
        return [request.start for request in self.requests if request.path == path]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def listed(path: str, content: bytes) -> dict[str, Any]:
    """Return what the hub says of a file when it is asked for blobs."""
    git_id = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_id}
    if len(content) >= LARGE_BYTES:
        entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
    return entry


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a hub on a free port of this machine, and let the test reach this machine, and no other."""
    hub = Hub()

    def connect(self: socket.socket, address: Any) -> None:
        assert address[0] in ("127.0.0.1", "::1"), f"a test tried to reach {address}"
        _socket.socket.connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = _Server(("127.0.0.1", 0), Handler)
    hub.port = server.server_address[1]
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of those who hang up."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer about a repository, with a small file, or with the place of a large one."""
        url = urlparse(self.path)
        parts = [part for part in url.path.split("/") if part]
        if self.hub.status is not None:
            self._refuse(self.hub.status)
        elif parts[:2] == ["api", "models"]:
            self._list("/".join(parts[2:4]), parts[5] if len(parts) > 5 else None, parse_qs(url.query))
        elif parts[:1] == ["elsewhere"]:
            self._send("/".join(parts[5:]), self.hub.repos[f"{parts[2]}/{parts[3]}"][parts[4]]["/".join(parts[5:])])
        elif len(parts) > 4 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._refuse(404)  # the library asks for more than what is needed here

    def _list(self, repo: str, revision: str | None, query: dict[str, list[str]]) -> None:
        found = self._revision(repo, revision)
        if found is None:
            return
        revision, files = found
        assert query.get("blobs", [""])[0].lower() == "true", "without it, the hub tells no sizes and no hashes"
        listing = [listed(path, content) for path, content in files.items()]
        about = {"id": repo, "modelId": repo, "sha": revision, "siblings": listing, "gated": False, "private": False}
        body = json.dumps(about).encode()
        self._answer(200, {"Content-Type": "application/json", "Content-Length": str(len(body))}, body)

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        found = self._revision(repo, revision)
        if found is None:
            return
        revision, files = found
        if repo in self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif path not in files or path in self.hub.gone:
            self._refuse(404, "EntryNotFound")
        elif len(files[path]) >= LARGE_BYTES:
            place = f"http://localhost:{self.hub.port}/elsewhere/of/{repo}/{revision}/{path}"
            self._answer(302, {"Location": place, "Content-Length": "0"})
        else:
            self._send(path, files[path])

    def _revision(self, repo: str, revision: str | None) -> tuple[str, dict[str, bytes]] | None:
        if repo not in self.hub.repos:
            self._refuse(401, "RepoNotFound")
            return None
        there = self.hub.repos[repo]
        wanted = revision or next(reversed(there))
        if wanted not in there:
            self._refuse(404, "RevisionNotFound")
            return None
        return wanted, there[wanted]

    def _send(self, path: str, content: bytes) -> None:
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked and not self.hub.ignores_ranges else 0
        self.hub.requests.append(Request(path, start, "Authorization" in self.headers))
        if path in self.hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        rest = content[start:]
        headers = {"Content-Length": str(len(rest))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cuts = self.hub.cut.get(path, [])
        self._answer(206 if start else 200, headers, rest[: cuts.pop(0)] if cuts else rest)

    def _refuse(self, status: int, code: str | None = None) -> None:
        headers = {"Content-Length": "0"} | ({"X-Error-Code": code} if code else {})
        self._answer(status, headers)

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # whoever asked may be gone
            self.wfile.write(body)
        if len(body) < int(headers["Content-Length"]):
            self.close_connection = True
