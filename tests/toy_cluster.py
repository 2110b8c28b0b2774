"""As much of a Kubernetes API server as kubectl needs: kinds, objects by name and label, and controllers that are done
at once. Nothing runs in it, and no field is validated.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

KINDS = {
    "v1": {"secrets": "Secret", "services": "Service", "namespaces": "Namespace"},
    "apps/v1": {"deployments": "Deployment"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "gateway.networking.k8s.io/v1": {"httproutes": "HTTPRoute"},
    "serving.kserve.io/v1beta1": {"inferenceservices": "InferenceService"},
    "monitoring.coreos.com/v1": {"podmonitors": "PodMonitor"},
}
KUBECTL = 27  # 1.20 was seen to fail and 1.32 to work: from 1.27 on it leaves checking fields to the server
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_VERBS = ["create", "delete", "get", "list", "patch", "watch"]
Key = tuple[str, str, str]  # plural, namespace, name


class Cluster(ThreadingHTTPServer):
    """``gateways``: those that take a route. ``done``: what was written, as (verb, plural, name), in order."""

    daemon_threads = True

    def __init__(self, gateways: tuple[str, ...], without: tuple[str, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.gateways = gateways
        self.kinds = {version: kinds for version, kinds in KINDS.items() if version not in without}
        self.objects: dict[Key, dict[str, Any]] = {}
        self.done: list[tuple[str, str, str]] = []
        self.ended = threading.Event()

    def names(self, plural: str) -> list[str]:
        """Of what there is."""
        return sorted(name for kind, _, name in self.objects if kind == plural)

    def put(self, key: Key, given: dict[str, Any]) -> dict[str, Any]:
        """Keep an object, as its controller would leave it."""
        before = self.objects.get(key, {}).get("metadata", {})
        kept = {"uid": before.get("uid", str(uuid.uuid4())), "generation": before.get("generation", 0) + 1}
        metadata = {**given["metadata"], "namespace": key[1], **kept, "resourceVersion": str(len(self.done) + 1)}
        made = {**given, "metadata": metadata, "status": self._status(key[0], given, kept["generation"])}
        self.objects[key] = made
        return made

    def _status(self, plural: str, given: dict[str, Any], generation: int) -> dict[str, Any]:
        if plural == "deployments":
            counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"), 1)
            return {"observedGeneration": generation, **counts}
        if plural == "inferenceservices":
            return {"conditions": [{"type": "Ready", "status": "True"}]}
        if plural == "httproutes":
            parents = [each["name"] for each in given["spec"]["parentRefs"] if each["name"] in self.gateways]
            accepted = [{"type": "ResolvedRefs", "status": "True"}, {"type": "Accepted", "status": "True"}]
            return {"parents": [{"parentRef": {"name": name}, "conditions": accepted} for name in parents]}
        return {}


class _Handler(BaseHTTPRequestHandler):
    server: Cluster
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        if (found := _discovered(self.server.kinds, path.path)) is not None:
            self._say(200, found)
            return
        version, plural, namespace, name = _place(path.path)
        if plural not in self.server.kinds.get(version, {}):
            self._missing(plural, name)
        elif name:
            there = self.server.objects.get((plural, namespace, name))
            self._say(200, there) if there else self._missing(plural, name)
        elif "true" in parse_qs(path.query).get("watch", ()):
            self._say(200, None)
            self.server.ended.wait(60)
        else:
            kind = f"{self.server.kinds[version][plural]}List"
            items = list(self._chosen(plural, namespace, parse_qs(path.query)))
            self._say(200, {"kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items})

    def do_POST(self) -> None:
        _, plural, namespace, _ = _place(urlsplit(self.path).path)
        given = self._given()
        name = given["metadata"]["name"]
        self.server.done.append(("create", plural, name))
        self._say(201, self.server.put((plural, namespace, name), given))

    def do_PATCH(self) -> None:
        _, plural, namespace, name = _place(urlsplit(self.path).path)
        # Whatever form the patch has, it brings along the whole object as it is to be, unless that is as it was.
        applied = self._given().get("metadata", {}).get("annotations", {}).get(_APPLIED)
        if applied is None:
            self._say(200, self.server.objects[plural, namespace, name])
            return
        given = json.loads(applied)
        given["metadata"].setdefault("annotations", {})[_APPLIED] = applied
        self.server.done.append(("change", plural, name))
        self._say(200, self.server.put((plural, namespace, name), given))

    def do_DELETE(self) -> None:
        _, plural, namespace, name = _place(urlsplit(self.path).path)
        self._given()
        gone = self.server.objects.pop((plural, namespace, name), None)
        if gone is None:
            self._missing(plural, name)
            return
        self.server.done.append(("delete", plural, name))
        details = {"name": name, "kind": plural, "uid": gone["metadata"]["uid"]}
        self._say(200, {"kind": "Status", "apiVersion": "v1", "status": "Success", "details": details})

    def _chosen(self, plural: str, namespace: str, asked: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
        wanted = dict(part.split("=") for part in asked.get("labelSelector", [""])[0].split(",") if part)
        field = asked.get("fieldSelector", [""])[0].removeprefix("metadata.name=")
        for (kind, place, name), each in self.server.objects.items():
            labels = each["metadata"].get("labels", {})
            if (kind, place) == (plural, namespace) and field in ("", name) and wanted.items() <= labels.items():
                yield each

    def _given(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")

    def _missing(self, plural: str, name: str) -> None:
        message = f'{plural} "{name}" not found' if name else "the server could not find the requested resource"
        said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        self._say(404, {**said, "message": message, "details": {"name": name, "kind": plural}})

    def _say(self, status: int, said: Any) -> None:
        """A document, or None: the head of a stream, which the end of the connection ends."""
        data = b"" if said is None else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header(*(("connection", "close") if said is None else ("content-length", str(len(data)))))
        self.end_headers()
        self.wfile.write(data)


def _place(path: str) -> tuple[str, str, str, str]:
    """Version, plural, namespace and name, which is empty where all are meant."""
    parts = path.strip("/").split("/")
    version, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
    namespace, rest = (rest[1], rest[2:]) if rest[:1] == ["namespaces"] and len(rest) > 2 else ("", rest)
    return version, (rest or [""])[0], namespace, rest[1] if len(rest) > 1 else ""


def _discovered(kinds: dict[str, dict[str, str]], path: str) -> Any:
    """What kinds there are, and that fields are validated by the server; None for other paths."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = [(version.split("/")[0], version) for version in kinds if "/" in version]
        listed = [
            {"name": name, "versions": [(one := {"groupVersion": each, "version": each.split("/")[1]})],
             "preferredVersion": one}
            for name, each in groups
        ]  # fmt: skip
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    address = {("/api/" if version == "v1" else "/apis/") + version: version for version in kinds}
    if path in address:
        version = address[path]
        resources = [
            {"name": plural, "singularName": kind.lower(), "namespaced": kind != "Namespace", "kind": kind,
             "verbs": _VERBS}
            for plural, kind in kinds[version].items()
        ]  # fmt: skip
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
    if path == "/openapi/v3":
        return {"paths": {each[1:]: {"serverRelativeURL": f"/openapi/v3{each}"} for each in address}}
    version = address.get(path.removeprefix("/openapi/v3"), "")
    if path.startswith("/openapi/v3/") and version:
        group, _, short = version.rpartition("/")
        validated = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
        paths = {
            f"{path.removeprefix('/openapi/v3')}/{plural}/{{name}}": {"patch": {
                "x-kubernetes-group-version-kind": {"group": group, "version": short, "kind": kind},
                "parameters": validated,
            }}
            for plural, kind in kinds[version].items()
        }  # fmt: skip
        return {"openapi": "3.0.0", "info": {"title": "toy", "version": "1"}, "paths": paths}
    return None


@contextmanager
def cluster(
    folder: Path, *, context: str = "toy", gateways: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> Iterator[Cluster]:
    """One that runs; ``folder/config`` is kubectl's. ``without``: versions of groups that it does not have."""
    server = Cluster(gateways, without)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": {"server": address}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": "nobody"}}],
        "users": [{"name": "nobody", "user": {}}],
    }
    (folder / "config").write_text(json.dumps(config))
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
