"""The target ``rayserve``: a file for Ray Serve, and the same as a RayService for KubeRay.

``serve.yaml`` is for a Ray cluster that runs, `serve deploy` takes it; ``rayservice.yaml`` is for a Kubernetes with
KubeRay, and takes an image that ``Dockerfile`` makes of target docker's, which has no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from treadle.core.errors import MissingExtra, UserError
from treadle.integrations import kubernetes_scale as scale
from treadle.integrations.docker import PORT, USER, image
from treadle.integrations.kubernetes_access import Cluster
from treadle.integrations.kubernetes_keys import ClientKeys
from treadle.integrations.kubernetes_pod import container
from treadle.integrations.ray_serve import DEPLOYMENT
from treadle.stages.deploy.call import Call, output_of
from treadle.stages.deploy.targets import RELEASE, Plan, Rendering, Written, check_image, check_port

_DOCKERFILE = """\
# {model}, release {digest}, with Ray. Written by `treadle render rayserve`.
# Of the image that `treadle render docker` makes; KubeRay's probes need wget.
# docker build --tag {own} .
# and docker push, of a name that the cluster pulls: --with image=REGISTRY/NAME:TAG.
ARG RELEASE_IMAGE={base}
FROM ${{RELEASE_IMAGE}}
USER 0:0
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN apt-get update \\
 && apt-get install --yes --no-install-recommends wget \\
 && rm -rf /var/lib/apt/lists/* \\
 && pip install --no-cache-dir "ray[serve]=={ray}"
USER {user}:{user}
ENTRYPOINT []
CMD ["/bin/bash"]
"""
_NEEDS = """\
# Needs: {own}, which Dockerfile makes, on every node, or where the cluster pulls it from.
"""
_SECONDS = 30.0  # that Ray's own API gets to answer
_HEAD = ({"containerPort": 6379, "name": "gcs"}, {"containerPort": 8265, "name": "dashboard"})


class RayServe:
    """An application of Ray Serve on a cluster that runs, by its own file; a RayService for KubeRay beside it."""

    tool = "serve"

    def __init__(
        self,
        *,
        address: str = "http://127.0.0.1:8265",
        port: int = 8000,
        home: str = "/opt/treadle",
        image: str = "",
        namespace: str = "default",
        replicas: int = 1,
        most: int = 4,
        cpus: int = 2,
        keys: str = "",
        degrade_for: str = "",
    ) -> None:
        """``address`` of the cluster's dashboard; its proxy listens on ``port`` of 127.0.0.1; the release is put under
        ``home``, which every node has. From ``replicas`` to ``most`` by requests under way, ``cpus`` each. ``image``,
        ``namespace``, ``keys``, ``degrade_for``: of the RayService, as of `Kubernetes`."""
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise UserError("target rayserve: address: expected one such as http://127.0.0.1:8265, without a login")
        if not Path(home).is_absolute() or any(letter in home for letter in " %\"'\\\n"):
            raise UserError(f"target rayserve: home {home!r}: expected a plain absolute path")
        check_port("rayserve", port)
        check_image("rayserve", image)
        scale.check_pods("rayserve", replicas, most, cpus)
        self._address, self._port, self._home = address, port, home
        self._image, self._namespace = image, Cluster(namespace).checked("rayserve").namespace
        self._replicas, self._most, self._cpus = replicas, most, cpus
        self._keys = ClientKeys(keys, degrade_for).checked("rayserve")

    def render(self, release: Rendering) -> Mapping[str, bytes]:
        """As `Target.render`."""
        ray = _ray_version()
        said = f"# {release.model}, release {release.digest}. Written by `treadle render rayserve`.\n"
        here = self._config(
            release, "127.0.0.1", self._port, f"{self._home}/{release.tag}", f"{self._home}/journal-{release.slug}"
        )
        base = image(release.slug, release.tag)
        own = self._image or f"{base}-ray"  # never the base's name, which docker's target gives an image without Ray
        named = {"model": release.model, "digest": release.digest, "own": own, "base": base, "ray": ray, "user": USER}
        return {
            "serve.yaml": (said + _yaml(here)).encode(),
            "rayservice.yaml": (said + _NEEDS.format(own=own) + _yaml(self._service(release, ray, own))).encode(),
            "Dockerfile": _DOCKERFILE.format(**named).encode(),
            ".gitignore": b"/release/\n",
        }

    def apply(self, written: Written) -> Plan:
        """As `Target.apply`."""
        others = Call(
            f"serve status --address {self._address}, and stop where other applications run",
            partial(_alone, self._address, written.slug),
        )
        commands = (
            others,
            ("install", "-d", self._home),
            ("cp", "-rT", RELEASE, f"{self._home}/{written.tag}"),
            ("serve", "deploy", "--address", self._address, "serve.yaml"),
        )
        return Plan(commands, f"http://127.0.0.1:{self._port}", release=RELEASE)

    def down(self, written: Written) -> Plan:
        """As `Target.down`; release and journal stay."""
        others = Call(
            f"serve status --address {self._address}, and stop where other applications run",
            partial(_alone, self._address, written.slug),
        )
        commands = (others, ("serve", "shutdown", "--address", self._address, "--yes"))
        return Plan(commands, f"http://127.0.0.1:{self._port}")

    def _config(self, release: Rendering, host: str, port: int, folder: str, journal: str) -> dict[str, Any]:
        """As ``ray.serve.schema.ServeDeploySchema`` has it."""
        arguments = {
            "release_folder": folder,
            "journal": journal,
            "digest": release.digest,
            "name": release.model,
            "host": host,
        }
        deployment = {
            "name": DEPLOYMENT,
            "max_ongoing_requests": 64,
            "autoscaling_config": {
                "min_replicas": self._replicas,
                "max_replicas": self._most,
                "target_ongoing_requests": 16,
            },
            "ray_actor_options": {"num_cpus": self._cpus},
            "graceful_shutdown_timeout_s": 45,
        }
        return {
            "proxy_location": "EveryNode",
            "http_options": {"host": host, "port": port},
            "applications": [
                {
                    "name": release.slug,
                    "route_prefix": "/",
                    "import_path": "treadle.integrations.ray_serve:application",
                    "args": arguments,
                    "deployments": [deployment],
                }
            ],
        }

    def _service(self, release: Rendering, ray: str, own: str) -> dict[str, Any]:
        inside = self._config(release, "0.0.0.0", PORT, "/release", "/journal")  # noqa: S104 (a pod's; it needs a key)
        worker = _pod(_plain(container(release, own, self._cpus, keys=self._keys), "ray-worker"))
        head = _plain(container(release, own, 1, keys=self._keys), "ray-head")
        head["ports"] = [*_HEAD, *head["ports"]]
        group = {
            "groupName": "serving",
            "replicas": self._replicas,
            "minReplicas": self._replicas,
            "maxReplicas": self._most,
            "rayStartParams": {"num-cpus": str(self._cpus)},
            "template": worker,
        }
        cluster = {
            "rayVersion": ray,
            "enableInTreeAutoscaling": self._most > self._replicas,
            "headGroupSpec": {
                "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},  # noqa: S104 (the operator asks it)
                "template": _pod(head),
            },
            "workerGroupSpecs": [group],
        }
        return {
            "apiVersion": "ray.io/v1",
            "kind": "RayService",
            "metadata": {
                "name": release.slug,
                "namespace": self._namespace,
                "annotations": {"treadle/release": release.digest},
            },
            "spec": {"serveConfigV2": _yaml(inside), "rayClusterConfig": cluster},
        }


def _alone(address: str, ours: str, _folder: Path) -> None:
    """``UserError`` where other applications run: Ray's own command takes away what its file does not name."""
    try:
        running = yaml.safe_load(output_of(("serve", "status", "--address", address)))["applications"]
    except (UserError, yaml.YAMLError, LookupError, TypeError) as error:
        raise UserError(
            f"Ray at {address}: no answer ({_line(error)}); start a cluster there with ray start --head, or name"
            " another with --with address=..."
        ) from None
    if others := sorted(name for name in running if name != ours):
        raise UserError(
            f"Ray at {address} runs {', '.join(others)} as well, which would be taken away;"
            " put the application of serve.yaml into the file of those"
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _plain(made: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A pod's container without probes: the operator has its own."""
    kept = {key: value for key, value in made.items() if not key.endswith("Probe")}
    mounts = [*made["volumeMounts"], {"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108 (Ray's objects lie there)
    return {**kept, "name": name, "volumeMounts": mounts}


def _pod(made: Mapping[str, Any]) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [{"name": name, "emptyDir": {}} for name in ("journal", "tmp")]
    volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    secured = {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    return {"spec": {"securityContext": secured, "containers": [made], "volumes": volumes}}


def _ray_version() -> str:
    try:
        return version("ray")
    except PackageNotFoundError:
        raise MissingExtra("ray", extra="rayserve") from None


class _Plain(yaml.SafeDumper):
    """Writes what stands twice twice, and texts of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Plain.add_representer(str, _text)


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Plain, sort_keys=False, width=120)
