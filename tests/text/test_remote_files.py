"""Files behind addresses, from a real S3 server (moto) and a real HTTP server on this machine."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from text import made
from treadle.core.errors import UserError
from treadle.text.accounting import Accounting
from treadle.text.document import Document
from treadle.text.source import SourceContext, open_source

Collect = Callable[..., tuple[list[Document], Accounting]]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
        elif self.path == "/short.txt":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"cut")
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        self.do_GET()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the files in ``tmp_path / site``."""
    (tmp_path / "site").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def fingerprint(folder: Path, path: str) -> str:
    return open_source({"type": "files", "path": path}, SourceContext(folder, str)).fingerprint()


def test_a_file_of_a_web_server(tmp_path: Path, collect: Collect, served: str) -> None:
    file = tmp_path / "site" / "a.zip"
    file.write_bytes(made.zipped({"in/a.txt": "some words", "b.docx": made.docx(made.paragraph("others"))}))
    documents, accounting = collect(path=f"{served}/a.zip")
    assert {document.locator: document.text for document in documents} == {
        f"{served}/a.zip!/in/a.txt": "some words",
        f"{served}/a.zip!/b.docx": "others",
    }
    assert accounting.read == 2
    before = fingerprint(tmp_path, f"{served}/a.zip")
    assert fingerprint(tmp_path, f"{served}/a.zip") == before
    file.write_bytes(made.zipped({"in/a.txt": "some other words"}))
    assert fingerprint(tmp_path, f"{served}/a.zip") != before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{served}/missing.txt", "nothing is at"),
        ("{served}/loop", "nothing is at|cannot be asked for"),
        ("http://name:key@127.0.0.1/a", "a key in it is refused; fetch the file"),
        ("ftp://127.0.0.1/a", "nobody opens ftp://"),
    ],
)
def test_addresses_that_lead_nowhere(tmp_path: Path, collect: Collect, served: str, path: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        collect(path=path.format(served=served))
    assert "name:key" not in str(caught.value)


def test_a_connection_that_breaks_is_told(tmp_path: Path, collect: Collect, served: str) -> None:
    documents, accounting = collect(path=f"{served}/short.txt")
    assert not [document for document in documents if document.text != "cut"]
    assert any("failed" in piece.reason for piece in accounting.quarantined)


def test_objects_of_a_bucket(tmp_path: Path, collect: Collect, monkeypatch: pytest.MonkeyPatch) -> None:
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }.items():
            monkeypatch.setenv(name, value)
        import fsspec

        bucket = fsspec.filesystem("s3", skip_instance_cache=True)
        bucket.mkdir("texts")
        bucket.pipe_file("texts/2024/a.jsonl", b'{"text": "one"}\n{"text": "two"}\n')
        bucket.pipe_file("texts/2024/b.zip", made.zipped({"c.txt": "three"}))
        bucket.pipe_file("texts/d.txt", b"four")
        documents, _ = collect(path="s3://texts/**")
        assert [(document.locator, document.text) for document in documents] == [
            ("s3://texts/2024/a.jsonl:1", "one"),
            ("s3://texts/2024/a.jsonl:2", "two"),
            ("s3://texts/2024/b.zip!/c.txt", "three"),
            ("s3://texts/d.txt", "four"),
        ]
        before = fingerprint(tmp_path, "s3://texts/2024/*")
        bucket.pipe_file("texts/d.txt", b"five")
        assert fingerprint(tmp_path, "s3://texts/2024/*") == before
        bucket.pipe_file("texts/2024/b.zip", made.zipped({"c.txt": "3"}))
        assert fingerprint(tmp_path, "s3://texts/2024/*") != before
    finally:
        server.stop()
