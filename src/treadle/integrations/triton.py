"""The target ``triton``: a model repository for NVIDIA Triton, and Triton run with it on this machine.

Its model is `triton_model`, run by Triton's Python backend, which every build of Triton has; the release answers in a
process of its own behind it, with the engine that it was bundled for. Triton has no keys, so it listens on 127.0.0.1.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from sys import executable
from typing import Any

from treadle.core.errors import UserError
from treadle.stages.deploy.call import Call
from treadle.stages.deploy.targets import QUESTION, RELEASE, Plan, Rendering, Written, check_port

_LONGEST = 600.0  # seconds that a model gets to be loaded
_LOG, _PID = "triton.log", "triton.pid"
_CONFIG = """\
# {model}, release {digest}. Written by `treadle render triton`.
name: {name}
backend: "python"
max_batch_size: 0
version_policy {{ specific {{ versions: [ {version} ] }} }}
input [
{inputs}
]
output [
{outputs}
]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{parameters}
"""
_START = """\
#!/bin/sh
# Starts Triton on 127.0.0.1:{port}, in the background; its log is {log}, its process in {pid}.
set -eu
umask 077
cd "$(dirname "$0")"
sh stop.sh
{server}
# Nobody knows the word that opens what loads models, maps memory and writes logs.
word=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')
nohup "$@" --model-repository=models --disable-auto-complete-config --http-address=127.0.0.1 --http-port={port} \\
 --http-restricted-api="model-repository,shared-memory,trace,logging:word=$word" \\
 --allow-grpc=false --allow-metrics=false >{log} 2>&1 </dev/null &
echo $! >{pid}
"""
_INSTALLED = """\
command -v tritonserver >/dev/null || {{
  echo "no tritonserver here; name an environment with nvidia-pytriton: treadle render --with environment=DIR" >&2
  exit 1
}}
set -- tritonserver
"""
_WHEEL = """\
# The server of nvidia-pytriton's wheel. Its Python backend looks for the stub of one Python beside it, and that for
# packages by the first python3 of PATH.
environment={environment}
ask() {{ "$environment/bin/python3" -c "$1" 2>/dev/null || true; }}
wheel=$(ask 'import sysconfig; print(sysconfig.get_path("purelib"))')/pytriton/tritonserver
version=$(ask 'import sys; print("%d.%d" % sys.version_info[:2])')
test -x "$wheel/bin/tritonserver" || {{
  echo "no Triton in $environment; run: $environment/bin/pip install nvidia-pytriton" >&2
  exit 1
}}
rm -rf backends
mkdir -p backends/python
ln -s "$wheel"/backends/python/* "$wheel/python_backend_stubs/$version/triton_python_backend_stub" backends/python/
export PATH="$environment/bin:$PATH"
set -- "$wheel/bin/tritonserver" "--backend-directory=$PWD/backends"
"""
_STOP = """\
#!/bin/sh
# Ends Triton after the requests in flight.
cd "$(dirname "$0")"
runs() { grep -qs tritonserver "/proc/$(cat triton.pid)/cmdline"; }
test -f triton.pid || exit 0
runs && kill "$(cat triton.pid)"
for _ in $(seq 300); do runs || { rm triton.pid; exit 0; }; sleep 0.3; done
echo "Triton, process $(cat triton.pid), does not end" >&2
exit 1
"""


class Triton:
    """A model repository for Triton's Python backend, with the release behind it; run on this machine, without keys."""

    tool = "tritonserver"

    def __init__(self, *, environment: str = "", python: str = "", port: int = 8000) -> None:
        """``environment``: the virtual environment that nvidia-pytriton is installed in; without it, tritonserver is on
        the PATH. ``python`` is the interpreter that Treadle is installed for."""
        self._environment, self._python, self._port = environment, python or executable, port
        check_port("triton", port)
        for word, path in (("environment", environment or "/"), ("python", self._python)):
            if not Path(path).is_absolute() or any(letter in path for letter in " %\"'\\\n"):
                raise UserError(f"target triton: {word} {path!r}: expected a plain absolute path")

    def render(self, release: Rendering) -> Mapping[str, bytes]:
        """As `Target.render`."""
        from treadle.serve.contracts.asking import version_of

        name, version = release.model.partition("@")[0], version_of(release.model)
        given = {"release": release.digest, "model": release.model, "python": self._python}
        config = _CONFIG.format(
            model=release.model,
            digest=release.digest,
            name=json.dumps(name),
            version=version,
            inputs=",\n".join(_inputs(release.spec.asking)),
            outputs=",\n".join(_outputs(release.spec.asking)),
            parameters="\n".join(_parameter(key, value) for key, value in given.items()),
        )
        server = _WHEEL if self._environment else _INSTALLED
        server = server.format(environment=shlex.quote(self._environment)).rstrip()
        return {
            f"models/{name}/config.pbtxt": config.encode(),
            f"models/{name}/{version}/model.py": Path(__file__).with_name("triton_model.py").read_bytes(),
            "start.sh": _START.format(server=server, port=self._port, log=_LOG, pid=_PID).encode(),
            "stop.sh": _STOP.encode(),
            ".gitignore": f"/release/\n/journal/\n/backends/\n/{_LOG}\n/{_PID}\n".encode(),
        }

    def apply(self, written: Written) -> Plan:
        """As `Target.apply`."""
        url = self._url(written)
        loaded = Call(f"GET {url}/ready until it is loaded, or Triton has ended", partial(_until_loaded, url))
        return Plan((("sh", "start.sh"), loaded), self._endpoint, release=RELEASE, ask=self._ask)

    def down(self, written: Written) -> Plan:
        """As `Target.down`; release and journal stay."""
        return Plan((("sh", "stop.sh"),), self._endpoint)

    @property
    def _endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _url(self, written: Written) -> str:
        return f"{self._endpoint}/v2/models/{written.model.partition('@')[0]}"

    def _ask(self, written: Written) -> dict[str, Any]:
        """What Triton answers, as our own server would say it. ``UserError`` where it does not."""
        import httpx

        url, generates = self._url(written), written.asking in ("chat", "extract")
        name = "question" if written.asking == "extract" else "text"
        body: dict[str, Any] = {"inputs": [{"name": name, "shape": [1], "datatype": "BYTES", "data": [QUESTION]}]}
        if generates:
            body["parameters"] = {"temperature": 0, "max_tokens": 16}
        try:
            said = httpx.post(f"{url}/infer", json=body, timeout=60, trust_env=False).json()
            if "error" in said:
                raise UserError(f"{url}/infer: {said['error']}")
            found = {each["name"]: each["data"] for each in said["outputs"]}
            (release,), _ = found.pop("release"), found.pop("interaction")
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{url}/infer gave no answer ({type(error).__name__}); {_LOG} says why") from None
        if generates:
            return {"system_fingerprint": release, "choices": [{"message": {"content": found["text"][0]}}]}
        plain = {name: values[0] if len(values) == 1 else values for name, values in found.items()}
        return {"system_fingerprint": release, "data": [plain]}


def _inputs(asking: str) -> Iterator[str]:
    """As the Open Inference Protocol's contract of our own server takes them; the rest are parameters."""
    if asking == "extract":
        yield _tensor("question", "STRING")
        yield _tensor("context", "STRING", "optional: true")
    else:
        yield _tensor("text", "STRING")


def _outputs(asking: str) -> Iterator[str]:
    from treadle.serve.contracts.asking import outputs_of

    for name, kind in outputs_of(asking).items():
        yield _tensor(name, "STRING" if kind == "text" else "FP32", axes=2 if kind == "numbers" else 1)
    yield _tensor("release", "STRING")
    yield _tensor("interaction", "STRING")


def _tensor(name: str, kind: str, more: str = "", *, axes: int = 1) -> str:
    said = f'name: "{name}" data_type: TYPE_{kind} dims: [ {", ".join(["-1"] * axes)} ] {more}'
    return f"  {{ {said.rstrip()} }}"


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(value)} }} }}'


def _until_loaded(url: str, folder: Path) -> None:
    """``UserError`` with what the log says when Triton has ended instead, or takes too long."""
    import httpx

    until = time.monotonic() + _LONGEST
    with httpx.Client(timeout=10, trust_env=False) as client:
        while time.monotonic() < until:
            time.sleep(0.3)
            runs = _runs(folder)
            try:
                if client.get(f"{url}/ready").status_code == 200 and runs:
                    return
            except httpx.HTTPError:
                pass
            if not runs:
                raise UserError(f"Triton ended: {_reason(folder / _LOG)}; {folder / _LOG} has all that it said")
    raise UserError(f"{url} was not loaded within {_LONGEST:.0f} s; {folder / _LOG} says why")


def _runs(folder: Path) -> bool:
    """Whether the process that start.sh started is there; what has ended and was not waited for has no command."""
    try:
        pid = int((folder / _PID).read_text())
        return b"tritonserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False


def _reason(log: Path) -> str:
    """What comes nearest to a reason: why the model was not loaded, the last error of Triton's, or the last line."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "it left no log"
    errors = [line.partition("] ")[2] for line in lines if line[:1] == "E" and line[1:5].isdigit()]
    failed = [error for error in errors if "failed to load" in error]
    said = [*failed, *errors[-1:], *lines[-1:], "it said nothing"][0]
    return " ".join(said.partition("\\n\\nAt:")[0].split()).strip('"')[:400]  # without Python's places
