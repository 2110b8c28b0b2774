"""What goes into an image: packages pinned as they are installed here, and a list of them in CycloneDX."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from treadle.core.errors import UserError
from treadle.lm.engines import GROUP
from treadle.stages.deploy.targets import Rendering

_EXTRAS = {"openvino": "openvino", "onnx": "onnx", "torchao": "torchao", "transformers": "train"}
_BESIDE = ("google-re2",)  # takes personal data out of what is recorded


def pinned(engine: str) -> dict[str, Distribution]:
    """Everything that serving with an engine needs, by name, as installed here; ``UserError`` where a part is not."""
    extras = "serve" + (f",{_EXTRAS[engine]}" if engine in _EXTRAS else "")
    waiting = [Requirement(f"treadle[{extras}]"), *map(Requirement, _BESIDE)]
    here = (entry.dist for entry in entry_points(group=GROUP) if entry.name == engine)
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
            raise UserError(
                f"render: {wanted.name} is not installed here; run: pip install 'treadle[{extras}]'"
            ) from None
        seen |= {(name, each) for each in fresh}
        waiting += _needs(found[name], fresh)
    return dict(sorted(found.items()))


def _needs(installed: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for line in installed.requires or ():
        need = Requirement(line)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in sorted(extras)):
            yield need


def requirements(packages: dict[str, Distribution]) -> bytes:
    """For pip; versions local to a machine (``+cpu``) without that part."""
    lines = [f"{name}=={each.version.partition('+')[0]}" for name, each in packages.items()]
    return ("\n".join(lines) + "\n").encode()


def bill(release: Rendering, packages: dict[str, Distribution]) -> bytes:
    """A software bill of materials: https://cyclonedx.org/docs/1.6/json/. Its number follows from what is in it."""
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{each.version}",
            "name": name,
            "version": each.version,
            "purl": f"pkg:pypi/{name}@{each.version}",
        }
        for name, each in packages.items()
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
