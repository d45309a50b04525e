"""A hub of our own on this machine: what the library `datasets` asks the public one for, answered from a folder."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

REVISION = "a" * 40


class HubServer(ThreadingHTTPServer):
    """Serves one data set while it is entered.

    Args:
        folder: Its files.
        name: What it is called, OWNER/NAME.
    """

    daemon_threads = True

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.name = name
        # Bytes after which a download breaks off, or goes no further; None where it does not.
        self.cut: int | None = None
        self.stall: int | None = None
        self.stalled = threading.Event()
        self.requests: list[str] = []
        self._released = threading.Event()

    @property
    def endpoint(self) -> str:
        """Its address, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> HubServer:
        """Begin to serve."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """End, and let go of whoever is held up."""
        self._released.set()
        self.shutdown()
        self.server_close()

    def hold(self) -> None:
        """Keep a download waiting until the server ends."""
        self.stalled.set()
        self._released.wait()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - of the standard library
        """A client that was killed is no error of the server's."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, name = unquote(urlsplit(self.path).path), re.escape(self.server.name)
        self.server.requests.append(f"{self.command} {path}")
        if re.fullmatch(rf"/api/datasets/{name}(/revision/[^/]+)?", path):
            files = [{"rfilename": entry["path"]} for entry in self._entries()]
            self._send_json({"id": self.server.name, "sha": REVISION, "siblings": files, "tags": []})
        elif found := re.fullmatch(rf"/api/datasets/{name}/tree/[^/]+/?(.*)", path):
            self._send_tree(found[1])
        elif found := re.fullmatch(rf"/datasets/{name}/resolve/[^/]+/(.+)", path):
            self._send_file(self.server.folder / found[1])
        else:
            self._send_json({"error": "there is nothing"}, 404, "RepoNotFound")

    def _entries(self) -> list[dict[str, Any]]:
        files = sorted(path for path in self.server.folder.rglob("*") if path.is_file())
        return [
            {
                "type": "file",
                "path": path.relative_to(self.server.folder).as_posix(),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }
            for path in files
        ]

    def _send_tree(self, under: str) -> None:
        """List one level of a folder."""
        parts = len(Path(under).parts)
        inside = [entry for entry in self._entries() if Path(entry["path"]).parts[:parts] == Path(under).parts]
        folders = {
            "/".join(Path(e["path"]).parts[: parts + 1]) for e in inside if len(Path(e["path"]).parts) > parts + 1
        }
        found = [entry for entry in inside if len(Path(entry["path"]).parts) == parts + 1]
        found += [{"type": "directory", "path": folder, "oid": "0" * 40, "size": 0} for folder in sorted(folders)]
        if found:
            self._send_json(found)
        else:
            self._send_json({"error": "there is no such folder"}, 404, "EntryNotFound")

    def _send_file(self, path: Path) -> None:
        if not path.is_file():
            self._send_json({"error": "there is no such file"}, 404, "EntryNotFound")
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        ends = [end for end in (self.server.cut, self.server.stall) if end is not None]
        self.wfile.write(content[: min(ends, default=len(content))])
        if self.server.stall is not None:
            self.server.hold()
        # Without what is left: the connection ends before the content does.
        self.close_connection = bool(ends)

    def _send_json(self, value: object, status: int = 200, error: str | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if error is not None:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
