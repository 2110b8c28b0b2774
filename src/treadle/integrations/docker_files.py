"""What goes into an image: packages pinned as they are installed here, and a list of them in CycloneDX.

torch is the build for processors from PyTorch's own index, for the one that PyPI has brings gigabytes of CUDA along; on
a GPU it is PyPI's. vLLM pins a torch of its own, so it has an environment of its own in the image as well, which it
gets from where its documentation says: https://docs.vllm.ai/en/latest/getting_started/installation/.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions, entry_points

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from treadle.core.errors import UserError
from treadle.lm.engines import GROUP
from treadle.stages.deploy.targets import Rendering

VLLM = "vllm"  # the engine, and the package
_EXTRAS = {"openvino": "openvino", "onnx": "onnx", "torchao": "torchao", "transformers": "train"}
_BESIDE = ("google-re2",)  # takes personal data out of what is recorded
_ON_GPU = ("transformers", VLLM)  # engines that compute on one
_REMOTES = "treadle.remotes"  # what opens a bucket, by its kind
_OPENED_BY = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_TORCH = "https://download.pytorch.org/whl"
_CUDA = ("nvidia-", "cuda-")  # what torch's build for GPUs asks for, as it does for triton
_VLLM_CUDA = "cu129"  # what vLLM's own builds are for


def check_gpu(target: str, engine: str, *, gpu: bool) -> None:
    """``UserError`` where an engine would leave a GPU idle."""
    if gpu and engine not in _ON_GPU:
        able = " or ".join(_ON_GPU)
        raise UserError(f"target {target}: gpu: engine {engine} computes on the processor; gpu is for {able}")


def pinned(engine: str, *, gpu: bool = False, postgres: bool = False, scheme: str = "") -> dict[str, str]:
    """Versions of everything that the server needs for an engine, and for a remote of a kind of bucket, by name, as
    installed here; ``UserError`` where a part is not. What vLLM itself needs is `beside`. ``postgres``: and for keys in
    a PostgreSQL."""
    found = _installed(engine, "serve,postgres" if postgres else "serve", scheme)
    if not gpu:
        found = {name: each for name, each in found.items() if name != "triton" and not name.startswith(_CUDA)}
    return _versions(found, gpu=gpu)


def beside(engine: str, *, gpu: bool = False) -> dict[str, str]:
    """Versions of vLLM and what it needs, as in the environment where it is installed; of vLLM alone where that is its
    build for the other kind of machine, whose packages are others. Nothing for other engines."""
    if engine != VLLM:
        return {}
    from treadle.integrations.vllm import VllmEngine

    python = VllmEngine.python()
    there = _environment(python)
    if VLLM not in there:
        raise UserError(f"render: {python} has no vLLM; run: {python} -m pip install vllm")
    built_for_gpu = not there[VLLM].version.endswith("+cpu")
    found = _closure(VLLM, there) if built_for_gpu == gpu else {VLLM: there[VLLM]}
    public = there[VLLM].version.partition("+")[0]
    return {**_versions(found, gpu=gpu), VLLM: public if gpu else f"{public}+cpu"}


def _environment(python: str) -> dict[str, Distribution]:
    """What is installed for an interpreter, by name."""
    asked = (python, "-I", "-c", "import json, sys; print(json.dumps(sys.path))")
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"render: {python} says nothing of what is installed for it ({type(error).__name__})") from None
    found = distributions(path=[path for path in json.loads(done.stdout) if path])
    return {canonicalize_name(each.name): each for each in found}


def _closure(root: str, there: Mapping[str, Distribution]) -> dict[str, Distribution]:
    """A package and what it needs, as far as it is there; pip finds the rest."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(root)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        fresh = {each for each in ("", *wanted.extras) if (name, each) not in seen}
        seen |= {(name, each) for each in fresh}
        if fresh and name in there:
            found[name] = there[name]
            waiting += _needs(there[name], fresh)
    return dict(sorted(found.items()))


def _versions(packages: Mapping[str, Distribution], *, gpu: bool) -> dict[str, str]:
    return {name: _version(name, each.version, gpu=gpu) for name, each in packages.items()}


def _version(name: str, installed: str, *, gpu: bool) -> str:
    """Without what is local to this machine, but for builds that are for processors alone."""
    public, _, local = installed.partition("+")
    return f"{public}+cpu" if not gpu and (local == "cpu" or name == "torch") else public


def _installed(engine: str, extras: str, scheme: str) -> dict[str, Distribution]:
    extras += (f",{_EXTRAS[engine]}" if engine in _EXTRAS else "") + (",remote" if scheme else "")
    opened = [_OPENED_BY[scheme]] if scheme in _OPENED_BY else []
    waiting = [Requirement(f"treadle[{extras}]"), *map(Requirement, (*_BESIDE, *opened))]
    for group, name in ((GROUP, engine), (_REMOTES, scheme)):
        here = (entry.dist for entry in entry_points(group=group) if entry.name == name)
        waiting += [Requirement(each.name) for each in here if each is not None]
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        fresh = {each for each in ("", *wanted.extras) if (name, each) not in seen}
        if not fresh:
            continue
        try:
            found[name] = distribution(wanted.name)
        except PackageNotFoundError:
            more = "".join(f" {name}" for name in opened)
            raise UserError(
                f"render: {wanted.name} is not installed here; run: pip install 'treadle[{extras}]'{more}"
            ) from None
        seen |= {(name, each) for each in fresh}
        waiting += _needs(found[name], fresh)
    return dict(sorted(found.items()))


def _needs(installed: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for line in installed.requires or ():
        need = Requirement(line)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in sorted(extras)):
            yield need


def requirements(packages: Mapping[str, str], *, gpu: bool = False) -> bytes:
    """For pip, with the indexes that builds for processors, and vLLM's for a GPU, come from."""
    lines = [f"--extra-index-url {index}" for index in _indexes(packages, gpu=gpu)]
    lines += [f"{name}=={version}" for name, version in packages.items()]
    return ("\n".join(lines) + "\n").encode()


def _indexes(packages: Mapping[str, str], *, gpu: bool) -> Iterator[str]:
    if VLLM in packages and gpu:
        yield f"{_TORCH}/{_VLLM_CUDA}"
    elif VLLM in packages:
        yield f"https://wheels.vllm.ai/{packages[VLLM].partition('+')[0]}/cpu"
    if not gpu and not packages.keys().isdisjoint(("torch", VLLM)):
        yield f"{_TORCH}/cpu"


def bill(release: Rendering, packages: Iterable[tuple[str, str]]) -> bytes:
    """A software bill of materials: https://cyclonedx.org/docs/1.6/json/. Its number follows from what is in it."""
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
        }
        for name, version in sorted(set(packages))
    ]
    model = {
        "type": "machine-learning-model",
        "bom-ref": release.digest,
        "name": release.spec.name,
        "version": release.model.partition("@")[2] or release.digest[:11],
        "properties": [
            {"name": "treadle:release", "value": release.digest},
            {"name": "treadle:model", "value": release.spec.model},
            {"name": "treadle:dataset", "value": release.spec.dataset},
            {"name": "treadle:base_model", "value": release.spec.base_model.get("digest", "not recorded")},
        ],
    }
    said = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, release.digest + json.dumps(components))}",
        "version": 1,
        "metadata": {"component": model},
        "components": components,
    }
    return (json.dumps(said, indent=2) + "\n").encode()
