"""The model in a Triton repository: `treadle render triton` copies this file there, Triton's Python backend runs it.

The Python that it runs by is Triton's, so it imports nothing of Treadle. The release answers in a process of its own,
`treadle serve` on loopback with a key that only this process knows: it compares the release's digest before it starts,
holds as many requests as its engine takes, and records each. What cannot be had so: answers in pieces, for Triton's
HTTP has none of them, and an end of the work when a client leaves.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_AT_ONCE = 64  # requests under way; Triton's queue has those beyond
_SECONDS = 600  # that one request may take
_LARGEST = 2000  # bytes of an error that are read
# Ends with the process that started it, however that ends.
_SERVE = """\
import ctypes, runpy, signal
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
runpy.run_module("treadle", run_name="__main__", alter_sys=True)
"""


class TritonPythonModel:
    """As the backend wants it: github.com/triton-inference-server/python_backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the release. ``RuntimeError`` where it does not come up."""
        config = json.loads(args["model_config"])
        given = {key: each["string_value"] for key, each in config["parameters"].items()}
        self._types = {each["name"]: _type(each["data_type"]) for each in config["input"]}
        self._release, self._name = given["release"], given["model"]
        root = Path(args["model_repository"]).resolve().parents[1]  # the folder that was rendered
        self._command = [given["python"], "-P", "-c", _SERVE, "serve", "--host", "127.0.0.1", "--port", "0", "--json"]
        self._command += ["--release-folder", str(root / "release"), "--journal", str(root / "journal")]
        self._command += ["--digest", self._release, "--name", self._name]
        self._key = secrets.token_hex(32)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # to this machine alone
        self._lock = threading.Lock()
        self._start()
        self._pool = ThreadPoolExecutor(_AT_ONCE)

    def execute(self, requests: list[Any]) -> None:
        """Take them; each is answered when its answer is there, so that the engine can hold many."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                body = self._read(request)
            except ValueError as error:
                self._send(sender, _failure(400, f"a text is no UTF-8 ({error})"))
            else:
                self._pool.submit(self._reply, sender, body)

    def finalize(self) -> None:
        """End it after what it is answering."""
        self._pool.shutdown()
        self._server.terminate()
        try:
            self._server.wait(60)
        except subprocess.TimeoutExpired:
            self._server.kill()

    def _start(self) -> None:
        environment = {**os.environ, "TREADLE_API_KEY": self._key}
        self._server = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._server.stdout is not None
        said = json.loads(self._server.stdout.readline() or "{}")
        if "url" not in said:
            why = said["error"]["message"] if "error" in said else "the log has what it said"
            raise RuntimeError(f"treadle serve ended with exit code {self._server.wait()}: {why}")
        self._url = said["url"]

    def _address(self) -> str:
        """Where the release answers; opened anew where its process has died."""
        with self._lock:
            if self._server.poll() is not None:
                self._start()
            return f"{self._url}/v2/models/{self._name.partition('@')[0]}/infer"

    def _read(self, request: Any) -> dict[str, Any]:
        """A request as the protocol has it, with nothing left of Triton's memory."""
        import triton_python_backend_utils as triton

        inputs = []
        for name, kind in self._types.items():
            tensor = triton.get_input_tensor_by_name(request, name)
            if tensor is None:
                continue
            values = tensor.as_numpy().ravel().tolist()
            data = [value.decode() for value in values] if kind == "BYTES" else values
            inputs.append({"name": name, "shape": [len(data)], "datatype": kind, "data": data})
        return {"inputs": inputs, "parameters": json.loads(request.parameters() or "{}")}

    def _reply(self, sender: Any, body: dict[str, Any]) -> None:
        try:
            response = self._response(self._ask(body))
        except urllib.error.HTTPError as error:
            response = _failure(error.code, _message(error))
        except Exception as error:  # a request without any answer would never end
            response = _failure(500, f"{type(error).__name__}: {error}")
        self._send(sender, response)

    def _ask(self, body: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        asked = urllib.request.Request(self._address(), json.dumps(body).encode(), headers)  # noqa: S310 (our own)
        with self._opener.open(asked, timeout=_SECONDS) as answer:
            return json.load(answer)

    def _response(self, said: Any) -> Any:
        """``ValueError`` where it is not the release's."""
        import numpy as np
        import triton_python_backend_utils as triton

        found = said["parameters"]
        if found["release"] != self._release:
            raise ValueError(f"release {found['release']} answered, not {self._release}")
        # Tensors like the others: parameters of answers are newer (25.02) than what many run.
        traced = {"release": [found["release"]], "interaction": found["interaction"].split(",")}
        outputs = [
            *said["outputs"],
            *({"name": name, "datatype": "BYTES", "shape": [-1], "data": data} for name, data in traced.items()),
        ]
        tensors = []
        for output in outputs:
            texts = output["datatype"] == "BYTES"
            values = [value.encode() for value in output["data"]] if texts else output["data"]
            array = np.array(values, dtype=object if texts else np.float32).reshape(output["shape"])
            tensors.append(triton.Tensor(output["name"], array))
        return triton.InferenceResponse(tensors)

    def _send(self, sender: Any, response: Any) -> None:
        import triton_python_backend_utils as triton

        sender.send(response, flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _type(name: str) -> str:
    """A type of Triton's configuration as the protocol calls it."""
    kind = name.removeprefix("TYPE_")
    return "BYTES" if kind == "STRING" else kind


def _message(error: urllib.error.HTTPError) -> str:
    data = error.read(_LARGEST).decode(errors="replace")
    try:
        return str(json.loads(data)["error"])
    except (ValueError, LookupError, TypeError):
        return data


def _failure(status: int, message: str) -> Any:
    import triton_python_backend_utils as triton

    kind = triton.TritonError
    codes = {404: kind.NOT_FOUND, 429: kind.UNAVAILABLE, 503: kind.UNAVAILABLE}
    code = codes.get(status, kind.INVALID_ARG if 400 <= status < 500 else kind.INTERNAL)
    return triton.InferenceResponse([], error=kind(message, code))
