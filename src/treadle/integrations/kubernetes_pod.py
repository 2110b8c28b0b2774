"""The pod that runs a release on Kubernetes, and how manifests are named and written.

Memory is that of the server and of its engine, as the release's smoke test measured it, half as much again; where it
measured none, it follows from the size of the weights, and an annotation says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from treadle.core.secrets import is_reference
from treadle.integrations.docker import PORT, USER, image
from treadle.integrations.kubernetes_keys import KEY, ONE_KEY, ClientKeys
from treadle.stages.deploy.targets import Rendering

SECRET = "treadle-api-key"  # noqa: S105 (the name of one)
NAME = "app.kubernetes.io/name"  # the label by which everything of a release is chosen
_MEBI = 1 << 20
_ROOM = 1.5  # memory asked for, over what was measured
_GATEWAY = 150 * _MEBI  # memory of the server before the engine
_ENGINE = 450 * _MEBI  # of an engine without weights, where nothing was measured
_NOTICE = 10  # seconds that a pod goes on answering, until nobody sends it anything any more
_GRACE = 60  # seconds until it is killed: the notice, a drain of thirty, and some
_VOLUMES = {"journal": "/journal", "tmp": "/tmp"}  # noqa: S108


def pod(release: Rendering, made: dict[str, Any]) -> dict[str, Any]:
    """The template of a pod around its container."""
    measured = "measured" if release.memory else "estimated from its weights"
    return {
        "metadata": {"annotations": {"treadle/release": release.digest, "treadle/memory": measured}},
        "spec": {
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": _GRACE,
            "containers": [made],
            "volumes": volumes(),
        },
    }


def volumes() -> list[dict[str, Any]]:
    """What the container writes to."""
    return [{"name": name, "emptyDir": {}} for name in _VOLUMES]


def container(
    release: Rendering, named: str, cpus: int, *, gpu: bool = False, keys: ClientKeys = ONE_KEY
) -> dict[str, Any]:
    """The one container of a pod, with what it needs and how it is asked whether it lives. ``gpu``: it gets one, by the
    name that NVIDIA's device plugin has for them."""
    memory = int((_GATEWAY + (release.memory or release.bytes + _ENGINE)) * _ROOM) // _MEBI + 1
    live, ready = ({"httpGet": {"path": f"/health/{name}", "port": PORT}} for name in ("live", "ready"))
    return {
        "name": "treadle",
        "image": named or image(release.slug, release.tag),
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": [
            _secret(KEY, "key", optional=keys.shared),
            *(_secret(name, name) for name in (*keys.secrets(), *variables(release))),
            *keys.plain(),
        ],
        "resources": {
            "requests": {"cpu": str(cpus), "memory": f"{memory}Mi"},
            "limits": {"memory": f"{memory}Mi", **({"nvidia.com/gpu": 1} if gpu else {})},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": {**ready, "periodSeconds": 3, "failureThreshold": 100},
        "livenessProbe": {**live, "periodSeconds": 10, "timeoutSeconds": 5},
        "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 5},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_NOTICE)]}}},
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in _VOLUMES.items()],
    }


def _secret(variable: str, key: str, *, optional: bool = False) -> dict[str, Any]:
    reference: dict[str, Any] = {"name": SECRET, "key": key, **({"optional": True} if optional else {})}
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def variables(release: Rendering) -> list[str]:
    """Variables of the environment that the engine's settings name, as ``${env:NAME}``."""
    settings = release.spec.optimization.get("settings") or {}
    return sorted({text[len("${env:") : -1] for text in _texts(settings) if is_reference(text)})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def labels(name: str) -> dict[str, str]:
    """Of an object, and of the pods that it is about."""
    return {NAME: name, "app.kubernetes.io/managed-by": "treadle"}


class _Plain(yaml.SafeDumper):
    """Writes what stands twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def manifest(said: str, value: Any) -> bytes:
    """A file, with comments before what is in it."""
    return (said + yaml.dump(value, Dumper=_Plain, sort_keys=False, width=120)).encode()
