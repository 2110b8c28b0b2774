"""The targets ``kubernetes`` (a kustomize base) and ``kserve`` (an InferenceService), of the image of ``docker``.

Memory is that of the server and of its engine, as the release's smoke test measured it, half as much again; where it
measured none, it follows from the size of the weights, and an annotation says so. What this does not prove: no cluster
was asked here, podman played the Deployment; see docs/stages/deploy.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import yaml

from treadle.core.errors import UserError
from treadle.integrations.docker import PORT, USER, image
from treadle.integrations.kubernetes_access import KEY, ask_service, drop_secret, play
from treadle.stages.deploy.call import Call
from treadle.stages.deploy.targets import Plan, Rendering, Written

_MEBI = 1 << 20
_ROOM = 1.5  # memory asked for, over what was measured
_GATEWAY = 150 * _MEBI  # memory of the server before the engine
_ENGINE = 450 * _MEBI  # of an engine without weights, where nothing was measured
_SECRET = "treadle-api-key"  # noqa: S105 (the name of one)
_FILES = ("deployment", "service", "autoscaler", "disruption", "network")


class Kubernetes:
    """A kustomize base: Deployment, Service, HPA, PDB, NetworkPolicy. The image is that of target docker."""

    def __init__(
        self,
        *,
        image: str = "",
        namespace: str = "default",
        replicas: int = 2,
        most: int = 10,
        cpus: int = 2,
        tool: str = "kubectl",
        port: int = PORT,
    ) -> None:
        """``image`` as the cluster pulls it; from ``replicas`` to ``most`` by use of the processor, ``cpus`` each.
        ``tool``: ``podman`` plays the Deployment on this machine, without a cluster, one pod at ``port`` of 127.0.0.1.
        """
        if tool not in ("kubectl", "podman"):  # a rendered folder says it, and it is run
            raise UserError(f"target kubernetes: tool {tool!r}: expected kubectl or podman")
        self.tool, self._port = tool, port
        self._image, self._namespace, self._replicas, self._most = image, namespace, replicas, most
        self._cpus = cpus

    def render(self, release: Rendering) -> Mapping[str, bytes]:
        """As `Target.render`."""
        made = {
            "deployment": self._deployment(release),
            "service": self._object("v1", "Service", release.slug, {
                "selector": _labels(release.slug),
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            }),
            "autoscaler": self._object("autoscaling/v2", "HorizontalPodAutoscaler", release.slug, {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": release.slug},
                "minReplicas": self._replicas,
                "maxReplicas": self._most,
                "metrics": [{
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
                }],
            }),
            "disruption": self._object("policy/v1", "PodDisruptionBudget", release.slug, {
                "maxUnavailable": 1,
                "selector": {"matchLabels": _labels(release.slug)},
            }),
            "network": self._object("networking.k8s.io/v1", "NetworkPolicy", release.slug, {
                "podSelector": {"matchLabels": _labels(release.slug)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"ports": [{"port": PORT, "protocol": "TCP"}]}],
                "egress": [],
            }),
        }  # fmt: skip
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self._namespace,
            "resources": [f"{name}.yaml" for name in _FILES],
        }
        said = f"# {release.model}, release {release.digest}. Written by `treadle render kubernetes`.\n"
        files = {f"{name}.yaml": (said + _yaml(made[name])).encode() for name in _FILES}
        secret = f"# Needs: kubectl -n {self._namespace} create secret generic {_SECRET} --from-literal=key=...\n"
        files["kustomization.yaml"] = (said + secret + _yaml(kustomization)).encode()
        return files

    def apply(self, written: Written) -> Plan:
        """As `Target.apply`."""
        if self.tool == "podman":
            played = Call(
                f"podman play kube --replace deployment.yaml, with the secret {_SECRET} of {KEY}",
                partial(play, secret=_SECRET),
            )
            return Plan((played,), f"http://127.0.0.1:{self._port}")
        rollout = ("kubectl", "-n", self._namespace, "rollout", "status", f"deployment/{written.slug}")
        commands = (("kubectl", "apply", "-k", "."), (*rollout, "--timeout=300s"))
        return Plan(commands, self._address(written), ask=partial(ask_service, self._namespace))

    def down(self, written: Written) -> Plan:
        """As `Target.down`."""
        if self.tool == "podman":
            secret = Call(f"podman secret rm {_SECRET}", partial(drop_secret, secret=_SECRET))
            return Plan(
                (("podman", "play", "kube", "--down", "deployment.yaml"), secret), f"http://127.0.0.1:{self._port}"
            )
        return Plan((("kubectl", "delete", "-k", ".", "--ignore-not-found"),), self._address(written))

    def _address(self, written: Written) -> str:
        return f"kubernetes:{self._namespace}/{written.slug}"

    def _deployment(self, release: Rendering) -> dict[str, Any]:
        measured = "measured" if release.memory else "estimated from its weights"
        made = container(release, self._image, self._cpus)
        alone = self.tool == "podman"
        if alone:  # it would publish the port on all addresses otherwise, and of one pod only
            made["ports"] = [{**made["ports"][0], "hostPort": self._port, "hostIP": "127.0.0.1"}]
        pod = {
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 45,
            "containers": [made],
            "volumes": [{"name": "journal", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        }  # fmt: skip
        return self._object("apps/v1", "Deployment", release.slug, {
            "replicas": 1 if alone else self._replicas,
            "selector": {"matchLabels": _labels(release.slug)},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {
                    "labels": _labels(release.slug),
                    "annotations": {"treadle/release": release.digest, "treadle/memory": measured},
                },
                "spec": pod,
            },
        })  # fmt: skip

    def _object(self, version: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": name, "namespace": self._namespace, "labels": _labels(name)}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


class KServe:
    """An InferenceService that runs the image of target docker."""

    tool = "kubectl"

    def __init__(
        self, *, image: str = "", namespace: str = "default", replicas: int = 1, most: int = 10, cpus: int = 2
    ) -> None:
        """As `Kubernetes`."""
        self._image, self._namespace, self._replicas, self._most = image, namespace, replicas, most
        self._cpus = cpus

    def render(self, release: Rendering) -> Mapping[str, bytes]:
        """As `Target.render`."""
        predictor = {
            "minReplicas": self._replicas,
            "maxReplicas": self._most,
            "containers": [{**container(release, self._image, self._cpus), "name": "kserve-container"}],
            "volumes": [{"name": "journal", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        }
        service = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {
                "name": release.slug,
                "namespace": self._namespace,
                "annotations": {"treadle/release": release.digest},
            },
            "spec": {"predictor": predictor},
        }
        said = f"# {release.model}, release {release.digest}. Written by `treadle render kserve`.\n"
        return {"inferenceservice.yaml": (said + _yaml(service)).encode()}

    def apply(self, written: Written) -> Plan:
        """As `Target.apply`."""
        wait = ("kubectl", "-n", self._namespace, "wait", f"inferenceservice/{written.slug}", "--for=condition=Ready")
        return Plan((("kubectl", "apply", "-f", "inferenceservice.yaml"), (*wait, "--timeout=300s")))

    def down(self, written: Written) -> Plan:
        """As `Target.down`."""
        return Plan((("kubectl", "delete", "-f", "inferenceservice.yaml", "--ignore-not-found"),))


def container(release: Rendering, named: str, cpus: int) -> dict[str, Any]:
    """The one container of a pod, with what it needs and how it is asked whether it lives."""
    memory = int((_GATEWAY + (release.memory or release.bytes + _ENGINE)) * _ROOM) // _MEBI + 1
    live, ready = ({"httpGet": {"path": f"/health/{name}", "port": PORT}} for name in ("live", "ready"))
    return {
        "name": "treadle",
        "image": named or image(release.slug, release.tag),
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": [{"name": "TREADLE_API_KEY", "valueFrom": {"secretKeyRef": {"name": _SECRET, "key": "key"}}}],
        "resources": {
            "requests": {"cpu": str(cpus), "memory": f"{memory}Mi"},
            "limits": {"memory": f"{memory}Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": {**ready, "periodSeconds": 3, "failureThreshold": 100},
        "livenessProbe": {**live, "periodSeconds": 10, "timeoutSeconds": 5},
        "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 5},
        "volumeMounts": [{"name": "journal", "mountPath": "/journal"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "treadle"}


class _Plain(yaml.SafeDumper):
    """Writes what stands twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Plain, sort_keys=False, width=120)
