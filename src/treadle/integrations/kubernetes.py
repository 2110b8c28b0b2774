"""The targets ``kubernetes`` (a kustomize base) and ``kserve`` (an InferenceService), of the image of ``docker``.

With ``canary`` another release answers a share of the requests from pods of its own: behind a route of the Gateway
API, or as KServe's newest revision. What this does not prove: no cluster was asked here, podman played the Deployment;
see docs/stages/deploy.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.integrations import kubernetes_route as route
from treadle.integrations import kubernetes_scale as scale
from treadle.integrations.docker import PORT, image
from treadle.integrations.docker_files import VLLM, check_gpu
from treadle.integrations.kubernetes_access import (
    CANARY_OF,
    Cluster,
    drop_secret,
    play,
    secret_command,
)
from treadle.integrations.kubernetes_keys import ClientKeys
from treadle.integrations.kubernetes_pod import SECRET, container, labels, manifest, pod, variables, volumes
from treadle.stages.deploy.call import Call, Command, output_of
from treadle.stages.deploy.targets import Plan, Rendering, Written, check_image, check_port, trial_name

_ROUTE = "route.yaml"
_MONITOR, _RULE = "monitor.yaml", "queue-metric.yaml"
_SERVICE = "inferenceservice.yaml"
_RELEASE, _BESIDE = "treadle/release", "treadle/beside"  # annotations
_TAGS = "serving.kserve.io/enable-tag-routing"  # both revisions get addresses of their own
_COMPONENT = "app.kubernetes.io/component"
_WAIT = "--timeout=300s"
# Of the first Gateway: a route that none takes is applied like any other, and nothing ever comes through it.
_ACCEPTED = '--for=jsonpath={.status.parents[0].conditions[?(@.type=="Accepted")].status}=True'


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
        gateway: str = "",
        host: str = "",
        canary: str = "",
        share: float = 0.1,
        canary_image: str = "",
        kube_context: str = "",
        tool: str = "kubectl",
        port: int = PORT,
        gpu: bool = False,
        scale_by: str = "",
        waiting: int = 4,
        keys: str = "",
        degrade_for: str = "",
        database_port: int = 5432,
        database_network: str = "",
    ) -> None:
        """``image`` as the cluster pulls it; from ``replicas`` to ``most`` pods, ``cpus`` each and with ``gpu`` one of
        NVIDIA's, ``scale_by`` use of the processor (``cpu``) or by requests that wait, ``waiting`` on average
        (``queue``, which is what engine vllm has otherwise; it needs a Prometheus Operator and its adapter).
        ``keys``: ``postgresql`` takes those of clients, budgets and rates from the project's database, reached at
        ``database_port`` in ``database_network`` (a CIDR; anywhere); known ones are let in for ``degrade_for`` while it
        is away.
        ``gateway``: NAME or NAMESPACE/NAME of a Gateway that gets a route for ``host``; ``canary``: another release,
        with pods of ``canary_image``, which that route gives a ``share`` of the requests. ``kube_context``: kubectl's.
        ``tool``: ``podman`` plays the Deployment on this machine, without a cluster, one pod at ``port`` of 127.0.0.1.
        """
        if tool not in ("kubectl", "podman"):  # a rendered folder says it, and it is run
            raise UserError(f"target kubernetes: tool {tool!r}: expected kubectl or podman")
        if tool == "podman" and gateway:
            raise UserError("target kubernetes: podman plays one Deployment, without a Gateway; leave gateway out")
        check_port("kubernetes", port)
        scale.check_pods("kubernetes", replicas, most, cpus)
        scale.check("kubernetes", scale_by, waiting)
        route.check("kubernetes", gateway, host)
        _check_canary("kubernetes", canary, share, image, canary_image)
        if canary and not gateway:
            raise UserError(
                "target kubernetes: canary needs a Gateway that shares the requests: gateway=NAMESPACE/NAME"
            )
        self._cluster = Cluster(namespace, kube_context).checked("kubernetes")
        self.tool, self._port = tool, port
        self._image, self._canary_image, self._cpus = image, canary_image, cpus
        self._replicas, self._most = replicas, most
        self._gateway, self._host, self.share = gateway, host, share
        self._gpu, self._scale_by, self._waiting = gpu, scale_by, waiting
        self._keys = ClientKeys(keys, degrade_for, database_port, database_network).checked("kubernetes")

    def render(self, release: Rendering) -> Mapping[str, bytes]:
        """As `Target.render`."""
        slug, said = release.slug, _said("kubernetes", release)
        files = {
            f"{name}.yaml": manifest(said, each) for name, each in self._objects(release, slug, self._image).items()
        }
        releases = [release]
        if release.canary is not None:
            releases.append(release.canary)
            tried = self._objects(release.canary, trial_name(slug), self._canary_image, of=slug)
            about = _said("kubernetes", release.canary)
            files |= {f"canary-{name}.yaml": manifest(about, each) for name, each in tried.items()}
        if self._gateway:
            files[_ROUTE] = manifest(_said("kubernetes", *releases), self._route(release))
        applied = list(files)
        if any(self._way(each) == "queue" for each in releases):
            about = _said("kubernetes", release)
            files[_MONITOR] = manifest(about, self._monitor(slug))
            applied.append(_MONITOR)
            named = scale.RULE_SAID.format(namespace=self._cluster.namespace, queue=scale.QUEUE)
            files[_RULE] = manifest(about + named, scale.rule())
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self._cluster.namespace,
            "resources": applied,
        }
        needs = self._needs(releases)
        files["kustomization.yaml"] = manifest(
            _said("kubernetes", *releases) + needs + self._keys.said(), kustomization
        )
        return files

    def apply(self, written: Written) -> Plan:
        """As `Target.apply`."""
        if self.tool == "podman":
            of = ", ".join(self._keys.held().values())
            played = Call(
                f"podman play kube --replace deployment.yaml, with the secret {SECRET} of {of}",
                partial(play, secret=SECRET, keys=self._keys),
            )
            return Plan((played,), f"http://127.0.0.1:{self._port}")
        cluster = self._cluster
        but_route = ("-l", f"{_COMPONENT}!=route") if self._gateway else ()
        commands: list[Command] = [cluster.needing_key(self._keys), cluster.kubectl("apply", "-k", ".", *but_route)]
        commands.extend(
            cluster.within("rollout", "status", f"deployment/{each.slug}", _WAIT) for each in written.answering()
        )
        then: list[Command] = []
        if self._gateway:
            then.append(cluster.kubectl("apply", "-f", _ROUTE))
            then.append(cluster.within("wait", f"httproute/{written.slug}", _ACCEPTED, "--timeout=60s"))
        if written.canary is None:
            then.append(cluster.ending_canary(written.slug))
        return Plan(tuple(commands), cluster.endpoint(written.slug), ask=cluster.ask, then=tuple(then))

    def down(self, written: Written) -> Plan:
        """As `Target.down`."""
        if self.tool == "podman":
            secret = Call(f"podman secret rm {SECRET}", partial(drop_secret, secret=SECRET))
            return Plan(
                (("podman", "play", "kube", "--down", "deployment.yaml"), secret), f"http://127.0.0.1:{self._port}"
            )
        cluster, gone = self._cluster, "--ignore-not-found"
        commands: list[Command] = []
        if self._gateway:  # first, so that nothing is sent to what goes
            commands.append(cluster.kubectl("delete", "-f", _ROUTE, gone))
        commands.append(cluster.kubectl("delete", "-k", ".", gone))
        if written.canary is None:
            commands.append(cluster.ending_canary(written.slug))
        return Plan(tuple(commands), cluster.endpoint(written.slug))

    def _objects(self, release: Rendering, name: str, named: str, *, of: str = "") -> dict[str, dict[str, Any]]:
        """Everything that one release has to itself; ``of`` is the release that it is tried beside."""
        check_gpu("kubernetes", release.engine, gpu=self._gpu)
        selected = {"matchLabels": labels(name)}
        fewest, most = self._replicas, self._most
        if of:  # for its share, and two where the others are, so that one of them may go away
            fewest = max(min(2, fewest), math.ceil(round(fewest * self.share, 6)))
            most = max(fewest, math.ceil(round(most * self.share, 6)))
        made = {
            "deployment": self._deployment(release, name, named),
            "service": self._object("v1", "Service", name, {
                "selector": labels(name),
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            }),
            "autoscaler": self._object("autoscaling/v2", "HorizontalPodAutoscaler", name, {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": fewest,
                "maxReplicas": most,
                **scale.scaled(self._way(release), self._waiting, gpu=self._gpu),
            }),
            "disruption": self._object("policy/v1", "PodDisruptionBudget", name, {
                "maxUnavailable": 1,
                "selector": selected,
            }),
            "network": self._object("networking.k8s.io/v1", "NetworkPolicy", name, {
                "podSelector": selected,
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"ports": [{"port": PORT, "protocol": "TCP"}]}],
                "egress": [{}] if release.engine == "upstream" else self._keys.egress(),  # its servers are elsewhere
            }),
        }  # fmt: skip
        if of:
            for each in made.values():
                each["metadata"]["labels"][CANARY_OF] = of
        return made

    def _deployment(self, release: Rendering, name: str, named: str) -> dict[str, Any]:
        made = container(release, named, self._cpus, gpu=self._gpu, keys=self._keys)
        alone = self.tool == "podman"
        if alone:  # it would publish the port on all addresses otherwise, and of one pod only
            made["ports"] = [{**made["ports"][0], "hostPort": self._port, "hostIP": "127.0.0.1"}]
        template = pod(release, made)
        template["metadata"] = {"labels": labels(name), **template["metadata"]}
        return self._object("apps/v1", "Deployment", name, {
            # In a cluster their number is the autoscaler's: one that stood here would undo it with each apply.
            **({"replicas": 1} if alone else {}),
            "selector": {"matchLabels": labels(name)},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        })  # fmt: skip

    def _way(self, release: Rendering) -> str:
        """By what its pods become more or fewer."""
        return self._scale_by or ("queue" if release.engine == VLLM else "cpu")

    def _monitor(self, slug: str) -> dict[str, Any]:
        made = self._object("monitoring.coreos.com/v1", "PodMonitor", slug, scale.monitor(slug, self._keys.scraping()))
        made["metadata"]["labels"][_COMPONENT] = "monitor"
        return made

    def _route(self, release: Rendering) -> dict[str, Any]:
        tried = release.canary
        backends = [route.Backend(release.slug, release.digest, release.model, 1 - self.share if tried else 1.0)]
        if tried is not None:
            backends.append(route.Backend(trial_name(release.slug), tried.digest, tried.model, self.share))
        made = self._object(route.VERSION, route.KIND, release.slug, route.spec(self._gateway, self._host, backends))
        made["metadata"]["labels"][_COMPONENT] = "route"
        if tried is not None:
            made["metadata"]["labels"][CANARY_OF] = release.slug
        return made

    def _object(self, version: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": name, "namespace": self._cluster.namespace, "labels": labels(name)}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}

    def _needs(self, releases: list[Rendering]) -> str:
        """What has to be there before the files are applied, as comments."""
        scraped = any(self._way(each) == "queue" for each in releases)
        named = sorted({name for each in releases for name in variables(each)})
        held = self._keys.held(scraped=scraped) | {name: name for name in named}
        needs = [secret_command(self._cluster, held)]
        for each, given in zip(releases, (self._image, self._canary_image), strict=False):
            if not given:
                needs.append(f"{image(each.slug, each.tag)} on every node, or another name with --with image=")
        if scraped:
            needs.append(
                f"the Prometheus Operator, with a Prometheus that selects {_MONITOR}, and prometheus-adapter with"
                f" {_RULE}; without them, --with scale_by=cpu"
            )
        if self._keys.shared:
            needs.append("an image that `treadle render docker --with keys=postgresql` made")
        if self._gpu:
            needs.append("nodes with NVIDIA's GPUs, its device plugin and driver")
        return "".join(f"# Needs: {need}\n" for need in needs)


class KServe:
    """An InferenceService that runs the image of target docker."""

    tool = "kubectl"

    def __init__(
        self,
        *,
        image: str = "",
        namespace: str = "default",
        replicas: int = 1,
        most: int = 10,
        cpus: int = 2,
        canary: str = "",
        share: float = 0.1,
        canary_image: str = "",
        kube_context: str = "",
        gpu: bool = False,
        keys: str = "",
        degrade_for: str = "",
    ) -> None:
        """As `Kubernetes`; ``share`` in whole percent."""
        scale.check_pods("kserve", replicas, most, cpus)
        _check_canary("kserve", canary, share, image, canary_image)
        if canary and not math.isclose(share * 100, round(share * 100)):
            raise UserError(f"target kserve: share {share}: KServe takes whole percents, such as 0.05")
        self._cluster = Cluster(namespace, kube_context).checked("kserve")
        self._image, self._replicas, self._most, self._cpus = image, replicas, most, cpus
        self._canary_image, self.share, self._gpu = canary_image, share, gpu
        self._keys = ClientKeys(keys, degrade_for).checked("kserve")

    def render(self, release: Rendering) -> Mapping[str, bytes]:
        """As `Target.render`; of a canary it is what the service that runs is changed to."""
        tried = release.canary
        if tried is None:
            return {
                _SERVICE: manifest(_said("kserve", release) + self._keys.said(), self._service(release, self._image))
            }
        service = self._service(tried, self._canary_image)
        service["metadata"]["annotations"] |= {_BESIDE: release.digest, _TAGS: "true"}
        service["spec"]["predictor"] |= {"canaryTrafficPercent": round(self.share * 100)}
        return {_SERVICE: manifest(_said("kserve", tried, release) + self._keys.said(), service)}

    def apply(self, written: Written) -> Plan:
        """As `Target.apply`."""
        cluster, named = self._cluster, f"inferenceservice/{written.slug}"
        commands: list[Command] = [cluster.needing_key(self._keys)]
        if written.canary is not None:
            said = f"look whether {written.model} is rolled out as {named}"
            commands.append(Call(said, partial(self._look, written=written)))
        commands.append(cluster.kubectl("apply", "-f", _SERVICE))
        commands.append(cluster.within("wait", named, "--for=condition=Ready", _WAIT))
        return Plan(tuple(commands))

    def down(self, written: Written) -> Plan:
        """As `Target.down`."""
        return Plan((self._cluster.kubectl("delete", "-f", _SERVICE, "--ignore-not-found"),))

    def _look(self, _folder: Path, written: Written) -> None:
        """KServe tries a canary beside whatever had all requests last, so that has to be the release it is said to
        be."""
        named = f"inferenceservice/{written.slug}"
        said = output_of(self._cluster.within("get", named, "--ignore-not-found", "-o", "json"))
        there = json.loads(said) if said.strip() else {}
        marks = there.get("metadata", {}).get("annotations", {})
        if marks.get(_BESIDE, marks.get(_RELEASE)) != written.release:
            raise UserError(
                f"kserve: {named} in {self._cluster.namespace} does not run {written.model}, beside which"
                " the canary is to be tried; render that release without a canary, and apply it first"
            )
        if not any(each == ("Ready", "True") for each in _conditions(there)):
            raise UserError(f"kserve: {named} in {self._cluster.namespace} is not ready; a canary waits until it is")

    def _container(self, release: Rendering, named: str) -> dict[str, Any]:
        """As Knative takes it: it refuses another name for the port of HTTP, and hooks; its own proxy drains."""
        made = container(release, named, self._cpus, gpu=self._gpu, keys=self._keys)
        del made["lifecycle"]
        return {**made, "name": "kserve-container", "ports": [{**each, "name": "http1"} for each in made["ports"]]}

    def _service(self, release: Rendering, named: str) -> dict[str, Any]:
        check_gpu("kserve", release.engine, gpu=self._gpu)
        predictor = {
            "minReplicas": self._replicas,
            "maxReplicas": self._most,
            "containers": [self._container(release, named)],
            "volumes": volumes(),
        }
        return {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {
                "name": release.slug,
                "namespace": self._cluster.namespace,
                "annotations": {_RELEASE: release.digest},
            },
            "spec": {"predictor": predictor},
        }


def _conditions(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for each in service.get("status", {}).get("conditions", ()):
        yield each.get("type", ""), each.get("status", "")


def _said(target: str, *releases: Rendering) -> str:
    """The comment that a file begins with."""
    told = " and ".join(f"{each.model}, release {each.digest}" for each in releases)
    return f"# {told}. Written by `treadle render {target}`.\n"


def _check_canary(target: str, canary: str, share: float, named: str, canary_image: str) -> None:
    if not 0 <= share < 1:
        raise UserError(
            f"target {target}: share {share}: expected a part of the requests from 0 to 1, such as 0.1; to give"
            " the other release all of them, render it alone"
        )
    for word, name in (("image", named), ("canary_image", canary_image)):
        check_image(target, name, word)
    if canary_image and not canary:
        raise UserError(f"target {target}: canary_image is of a canary; name that release too, with canary=REF")
    if canary and bool(named) != bool(canary_image):
        raise UserError(f"target {target}: name the images of both releases, with image=... and canary_image=...")
