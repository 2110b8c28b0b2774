"""An OpenAI-style server on this machine, with answers that a test can foretell and faults that it can ask for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass
class TeacherServer:
    """``reply`` makes the text of an answer of the last message; ``fault`` may take a request over, by its number."""

    reply: Callable[[str], str]
    fault: Callable[[BaseHTTPRequestHandler, int], bool] = lambda handler, number: False
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)

    def __enter__(self) -> TeacherServer:
        teacher, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            teacher: TeacherServer

            def log_message(self, *arguments: object) -> None:
                """Silent."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(teacher.asked)
                    teacher.asked.append(body)
                    teacher.keys.add(self.headers.get("Authorization"))
                if self.path != "/v1/chat/completions":
                    send(self, 404, {"error": {"message": f"no {self.path}"}})
                elif not teacher.fault(self, number):
                    text = teacher.reply(body["messages"][-1]["content"])
                    send(self, 200, completion(text))

        Handler.teacher = teacher
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """What stands in the file."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"


def completion(text: str | None, finish: str = "stop") -> dict[str, Any]:
    """An answer as such servers give it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {
        "id": "c",
        "object": "chat.completion",
        "model": "large-1",
        "system_fingerprint": "fp-7",
        "choices": [choice],
    }


def send(handler: BaseHTTPRequestHandler, status: int, value: object, **headers: str) -> None:
    """Send JSON."""
    data = json.dumps(value).encode()
    handler.send_response(status)
    for name, said in headers.items():
        handler.send_header(name.replace("_", "-"), said)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
