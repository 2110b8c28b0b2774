"""The target ``vertex``: the image of target docker behind a Vertex AI endpoint.

The files are the requests themselves, in the JSON form of ``google.cloud.aiplatform.v1``: ``UploadModelRequest``,
``CreateEndpointRequest``, ``DeployModelRequest``. A model is named by what is in its request, so that applying a folder
again changes nothing. A release that was deployed before stays beside the new one without traffic until its own folder
is taken down, so that applying that folder again goes back at once; it costs its machines meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import UserError
from treadle.integrations.vertex_api import VertexApi
from treadle.stages.deploy.call import Call, request_file, request_in
from treadle.stages.deploy.targets import Plan, Rendering, Written, check_image, question

UPLOAD, CREATE, DEPLOY = "upload-model.json", "create-endpoint.json", "deploy-model.json"
_PORT = 8080  # the platform's default; it says it to the container in AIP_HTTP_PORT
_PLACE = re.compile(r"[a-z][a-z0-9-]{0,62}")
_CHAT = ("chat", "extract")


class Vertex:
    """A Vertex AI endpoint of the image of target docker, by requests to its API."""

    tool = "google-auth"

    def __init__(
        self,
        *,
        image: str,
        project: str,
        region: str,
        endpoint: str = "",
        machine: str = "n2-standard-4",
        replicas: int = 1,
        most: int = 3,
        service_account: str = "",
    ) -> None:
        """``image`` as it was pushed to Artifact Registry, ``project`` by its id; ``endpoint`` is named as the model
        where it is left out; from ``replicas`` to ``most`` by use of the processor."""
        if not image:
            raise UserError("target vertex: image: expected the image that target docker made, as pushed to a registry")
        check_image("vertex", image)
        for word, value in (("project", project), ("region", region), ("endpoint", endpoint or "e")):
            if not _PLACE.fullmatch(value):
                raise UserError(f"target vertex: {word} {value!r}: expected lower-case letters, digits and hyphens")
        if not 1 <= replicas <= most:
            raise UserError(f"target vertex: replicas {replicas}, most {most}: expected 1 or more, and most above it")
        self._image, self._endpoint, self._machine = image, endpoint, machine
        self._region, self._replicas, self._most = region, replicas, most
        self._parent = f"projects/{project}/locations/{region}"
        self._account = {"serviceAccount": service_account} if service_account else {}

    def render(self, release: Rendering) -> Mapping[str, bytes]:
        """As `Target.render`."""
        labels = {"treadle-release": release.tag, "treadle-name": release.slug}
        container = {
            "imageUri": self._image,
            "args": ["serve", "--host", "0.0.0.0", "--no-key"],  # noqa: S104 (only the platform reaches it)
            "env": [{"name": "TREADLE_RELEASE_DIGEST", "value": release.digest}],
            "ports": [{"containerPort": _PORT}],
            "predictRoute": "/predict",
            "healthRoute": "/health/ready",
            "deploymentTimeout": "1800s",
        }
        model = {
            "displayName": release.model,
            "description": f"release {release.digest}",
            "containerSpec": container,
            "labels": labels,
        }
        identifier = f"{_letter(release.slug)}-{blake3_bytes(canonical_json(model))[3:15]}"
        upload = {"parent": self._parent, "modelId": identifier, "model": model}
        name = self._endpoint or _letter(release.slug)
        create = {
            "parent": self._parent,
            "endpointId": name,
            "endpoint": {"displayName": name, "labels": {"treadle-name": release.slug}},
        }
        deploy = {
            "endpoint": self._place(name),
            "deployedModel": {
                "model": f"{self._parent}/models/{identifier}",
                "displayName": release.model,
                "dedicatedResources": {
                    "machineSpec": {"machineType": self._machine},
                    "minReplicaCount": self._replicas,
                    "maxReplicaCount": self._most,
                },
                **self._account,
            },
            "trafficSplit": {"0": 100},
        }
        return {UPLOAD: request_file(upload), CREATE: request_file(create), DEPLOY: request_file(deploy)}

    def apply(self, written: Written) -> Plan:
        """As `Target.apply`."""
        api = VertexApi(self._region)
        return Plan(
            endpoint=self._address(written),
            commands=(
                Call(f"Vertex AI models.upload, unless it is there: {UPLOAD}", partial(_upload, api)),
                Call(f"Vertex AI endpoints.create, unless it is there: {CREATE}", partial(_create, api)),
                Call(f"Vertex AI endpoints.deployModel, and all traffic to it: {DEPLOY}", partial(_deploy, api)),
            ),
            ask=lambda of: _ask(api, self._place(self._endpoint or _letter(of.slug)), of),
        )

    def down(self, written: Written) -> Plan:
        """As `Target.down`; an endpoint with other releases on it stays."""
        api = VertexApi(self._region)
        return Plan(
            endpoint=self._address(written),
            commands=(
                Call(f"Vertex AI endpoints.undeployModel of {DEPLOY}", partial(_undeploy, api)),
                Call(f"Vertex AI endpoints.delete of {CREATE}, where nothing is on it", partial(_delete, api)),
                Call(f"Vertex AI models.delete of {UPLOAD}", partial(_forget, api)),
            ),
        )

    def _place(self, name: str) -> str:
        return f"{self._parent}/endpoints/{name}"

    def _address(self, written: Written) -> str:
        return f"vertex:{self._place(self._endpoint or _letter(written.slug))}"


def _upload(api: VertexApi, folder: Path) -> None:
    request = request_in(folder, UPLOAD, "parent", "modelId")
    if api.found(f"{request['parent']}/models/{request['modelId']}") is None:
        body = {name: value for name, value in request.items() if name != "parent"}
        api.done(api.post(f"{request['parent']}/models:upload", body))


def _create(api: VertexApi, folder: Path) -> None:
    request = request_in(folder, CREATE, "parent", "endpointId", "endpoint")
    if api.found(f"{request['parent']}/endpoints/{request['endpointId']}") is None:
        place = f"{request['parent']}/endpoints"
        api.done(api.post(place, request["endpoint"], endpointId=request["endpointId"]))


def _deploy(api: VertexApi, folder: Path) -> None:
    request = request_in(folder, DEPLOY, "endpoint", "deployedModel")
    place = request["endpoint"]
    there = api.found(place) or {}
    ours = _deployed(there, request)
    if ours is None:
        body = {name: value for name, value in request.items() if name != "endpoint"}
        api.done(api.post(f"{place}:deployModel", body))
    elif there.get("trafficSplit", {}).get(ours) != 100:
        api.patch(place, {"trafficSplit": {ours: 100}}, "trafficSplit")


def _undeploy(api: VertexApi, folder: Path) -> None:
    request = request_in(folder, DEPLOY, "endpoint", "deployedModel")
    place = request["endpoint"]
    there = api.found(place) or {}
    ours = _deployed(there, request)
    if ours is None:
        return
    if there.get("trafficSplit", {}).get(ours) and len(there.get("deployedModels", [])) > 1:
        raise UserError(
            f"Vertex AI: {place} sends its traffic to this release and has others on it; it was left there: apply the"
            " folder of another one first"
        )
    api.done(api.post(f"{place}:undeployModel", {"deployedModelId": ours}))


def _delete(api: VertexApi, folder: Path) -> None:
    request = request_in(folder, CREATE, "parent", "endpointId", "endpoint")
    place = f"{request['parent']}/endpoints/{request['endpointId']}"
    there = api.found(place)
    if there is not None and not there.get("deployedModels"):
        api.done(api.delete(place))


def _forget(api: VertexApi, folder: Path) -> None:
    request = request_in(folder, UPLOAD, "parent", "modelId")
    place = f"{request['parent']}/models/{request['modelId']}"
    if api.found(place) is not None:
        api.done(api.delete(place))


def _deployed(endpoint: Mapping[str, Any], request: Mapping[str, Any]) -> str | None:
    """The number under which the request's model is on an endpoint."""
    wanted = str(request["deployedModel"].get("model")).rpartition("/")[2]  # projects go by id or by number
    for each in endpoint.get("deployedModels", []):
        if each["model"].partition("@")[0].rpartition("/")[2] == wanted:
            return str(each["id"])
    return None


def _ask(api: VertexApi, place: str, written: Written) -> dict[str, Any]:
    """What the container answered, in our own form. By rawPredict, which hands its whole answer on."""
    asked = question(written.asking)
    instance = {"messages": asked["messages"]} if written.asking in _CHAT else {"text": asked["input"]}
    parameters = {"temperature": 0, "maxOutputTokens": asked["max_tokens"]} if written.asking in _CHAT else {}
    said = api.post(f"{place}:rawPredict", {"instances": [instance], "parameters": parameters})
    try:
        found, (prediction,) = said.get("system_fingerprint"), said["predictions"]
    except (LookupError, ValueError, TypeError):
        raise UserError(f"Vertex AI: {place} answered without one prediction") from None
    if written.asking in _CHAT:
        return {"system_fingerprint": found, "choices": [{"message": {"content": prediction}}]}
    return {"system_fingerprint": found, "data": [prediction]}


def _letter(slug: str) -> str:
    """A name that begins with a letter, as models and endpoints have to."""
    return slug if slug[0].isalpha() else f"m-{slug}"
