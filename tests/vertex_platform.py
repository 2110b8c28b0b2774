"""What stands in for Vertex AI in tests; ``vertex_platform.py PYTHON``, run with google-cloud-aiplatform.

Requests are read by the client's own types, which refuse what they do not know, and kept; the container of what is
deployed is started as the platform documents, as a process of ``PYTHON -m treadle``: with the arguments and environment
of its specification and the ``AIP_*`` variables, asked at its health route until it answers, then at its predict route.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from google.cloud import aiplatform_v1 as api
from google.protobuf import json_format

PYTHON = sys.argv[1]
PLACE = r"(projects/[a-z0-9-]+/locations/[a-z0-9-]+)"


def read(kind: Any, body: dict[str, Any]) -> Any:
    """A request by its type; ``ParseError`` for a field that it does not have."""
    return json_format.ParseDict(body, kind.pb(kind()), ignore_unknown_fields=False)


def told(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message)


class Container:
    """One that runs, and where it answers."""

    def __init__(self, spec: Any, number: str) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        said = {each.name: each.value for each in spec.env}
        aip = {"AIP_MODE": "PREDICTION", "AIP_HTTP_PORT": str(port), "AIP_DEPLOYED_MODEL_ID": number}
        aip |= {"AIP_HEALTH_ROUTE": spec.health_route, "AIP_PREDICT_ROUTE": spec.predict_route}
        self.url, self.predict = f"http://127.0.0.1:{port}", spec.predict_route
        self.process = subprocess.Popen([PYTHON, "-m", "treadle", *spec.args], env=os.environ | said | aip)
        until = time.monotonic() + 120
        while not self._healthy(spec.health_route):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("Model server exited unexpectedly, or never became healthy")
            time.sleep(0.2)

    def _healthy(self, route: str) -> bool:
        try:
            return bool(urllib.request.urlopen(self.url + route, timeout=5).status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)


class Vertex:
    """What there is."""

    def __init__(self) -> None:
        self.things: dict[str, Any] = {}
        self.containers: dict[str, Container] = {}
        self.operations: dict[str, dict[str, Any]] = {}

    def operation(self, error: str = "") -> dict[str, Any]:
        """One that is not done when it is told of, and done when it is asked for."""
        name = f"projects/1/locations/here/operations/{len(self.operations) + 1}"
        self.operations[name] = {"name": name, "done": True} | ({"error": {"message": error}} if error else {})
        return {"name": name}

    def upload(self, parent: str, body: dict[str, Any]) -> dict[str, Any]:
        request = read(api.UploadModelRequest, {"parent": parent, **body})
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", request.model_id), request.model_id
        request.model.name = f"{parent}/models/{request.model_id}"
        self.things[request.model.name] = request.model
        return self.operation()

    def create(self, parent: str, body: dict[str, Any], name: str) -> dict[str, Any]:
        request = read(api.CreateEndpointRequest, {"parent": parent, "endpoint": body, "endpointId": name})
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", request.endpoint_id), request.endpoint_id
        request.endpoint.name = f"{parent}/endpoints/{name}"
        self.things[request.endpoint.name] = request.endpoint
        return self.operation()

    def deploy(self, place: str, body: dict[str, Any]) -> dict[str, Any]:
        request = read(api.DeployModelRequest, {"endpoint": place, **body})
        endpoint, number = self.things[place], str(4200 + len(self.operations))
        try:
            container = Container(self.things[request.deployed_model.model].container_spec, number)
        except RuntimeError as error:
            return self.operation(str(error))
        self.containers[number] = container
        request.deployed_model.id = number
        endpoint.deployed_models.append(request.deployed_model)
        split = {number if key == "0" else key: share for key, share in request.traffic_split.items()}
        assert sum(split.values()) == 100
        endpoint.traffic_split.clear()
        endpoint.traffic_split.update(split)
        return self.operation()

    def undeploy(self, place: str, body: dict[str, Any]) -> dict[str, Any]:
        request = read(api.UndeployModelRequest, {"endpoint": place, **body})
        endpoint, number = self.things[place], request.deployed_model_id
        others = [each for each in endpoint.deployed_models if each.id != number]
        assert not others or not endpoint.traffic_split.get(number), "it has traffic"
        self.containers.pop(number).end()
        del endpoint.deployed_models[:]
        endpoint.deployed_models.extend(others)
        endpoint.traffic_split.pop(number, None)
        return self.operation()

    def split(self, place: str, body: dict[str, Any], mask: str) -> dict[str, Any]:
        endpoint = read(api.Endpoint, body)
        assert mask == "trafficSplit"
        assert set(endpoint.traffic_split) <= {each.id for each in self.things[place].deployed_models}
        self.things[place].traffic_split.clear()
        self.things[place].traffic_split.update(endpoint.traffic_split)
        return told(self.things[place])

    def predict(self, place: str, body: bytes) -> tuple[int, bytes]:
        (number,) = [key for key, share in self.things[place].traffic_split.items() if share]
        container = self.containers[number]
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(container.url + container.predict, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as said:
                return said.status, said.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


VERTEX = Vertex()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        place = self.path.removeprefix("/v1/")
        if place in VERTEX.operations:
            self.reply(200, VERTEX.operations[place])
        elif place in VERTEX.things:
            self.reply(200, told(VERTEX.things[place]))
        else:
            self.reply(404, {"error": {"message": f"{place} is not found"}})

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        place, _, verb = parts.path.removeprefix("/v1/").partition(":")
        data = self.rfile.read(int(self.headers["content-length"]))
        if verb == "rawPredict":
            self.reply(*VERTEX.predict(place, data))
            return
        body = json.loads(data)
        try:
            if verb == "upload":
                self.reply(200, VERTEX.upload(place.removesuffix("/models"), body))
            elif verb == "deployModel":
                self.reply(200, VERTEX.deploy(place, body))
            elif verb == "undeployModel":
                self.reply(200, VERTEX.undeploy(place, body))
            else:
                (name,) = parse_qs(parts.query)["endpointId"]
                self.reply(200, VERTEX.create(place.removesuffix("/endpoints"), body, name))
        except (json_format.ParseError, AssertionError, KeyError) as error:
            self.reply(400, {"error": {"message": f"{type(error).__name__}: {error}"}})

    def do_PATCH(self) -> None:
        parts = urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.reply(200, VERTEX.split(parts.path.removeprefix("/v1/"), body, parse_qs(parts.query)["updateMask"][0]))

    def do_DELETE(self) -> None:
        del VERTEX.things[self.path.removeprefix("/v1/")]
        self.reply(200, VERTEX.operation())

    def reply(self, status: int, content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()  # until who started it ends
    server.shutdown()
    for container in VERTEX.containers.values():
        container.end()
