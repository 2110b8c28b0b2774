"""What stands in for SageMaker in tests: moto keeps models and endpoints, and this asks their containers.

It does what the platform documents: starts the container that an endpoint's model names, with its environment, asks
``GET /ping``, and hands bodies of ``InvokeEndpoint`` to ``POST /invocations`` with the headers that pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import httpx
from moto.sagemaker.models import sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse

ACCOUNT, REGION = "123456789012", "eu-west-1"
Start = Callable[[dict[str, Any]], AbstractContextManager[str]]  # a model's container; gives where it listens
_PASSED = ("content-type", "accept", "x-amzn-sagemaker-custom-attributes")


def update_endpoint(response: SageMakerResponse) -> str:
    """The one call that moto lacks: the endpoint is behind another configuration from now on."""
    asked = response._get_param
    backend = sagemaker_backends[ACCOUNT][REGION]
    endpoint = backend.endpoints[asked("EndpointName")]
    backend.describe_endpoint_config(asked("EndpointConfigName"))
    endpoint.endpoint_config_name = asked("EndpointConfigName")
    return '{"EndpointArn": "' + endpoint.arn + '"}'


class Platform:
    """The containers that were asked so far, by model."""

    def __init__(self, moto: str, start: Start, stack: ExitStack) -> None:
        self._client = boto3.client(
            "sagemaker", region_name=REGION, endpoint_url=moto, aws_access_key_id="test", aws_secret_access_key="test"
        )
        self._start, self._stack = start, stack
        self._running: dict[str, str] = {}
        self._lock = threading.Lock()

    def container(self, endpoint: str) -> str:
        config = self._client.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
        (variant,) = self._client.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        with self._lock:
            if variant["ModelName"] not in self._running:
                model = self._client.describe_model(ModelName=variant["ModelName"])
                url = self._stack.enter_context(self._start(model["PrimaryContainer"]))
                assert httpx.get(f"{url}/ping", timeout=5).status_code == 200
                self._running[variant["ModelName"]] = url
        return self._running[variant["ModelName"]]


@contextmanager
def runtime(moto: str, start: Start) -> Iterator[str]:
    """The address of ``sagemaker-runtime``; containers end with it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            _, endpoints, name, invocations = self.path.split("/")
            assert (endpoints, invocations) == ("endpoints", "invocations")
            assert self.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")  # it is signed; no more is checked
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {key: self.headers[key] for key in _PASSED if key in self.headers}
            said = httpx.post(f"{platform.container(name)}/invocations", content=body, headers=headers, timeout=60)
            self.send_response(said.status_code)
            for key in _PASSED:
                if key in said.headers:
                    self.send_header(key, said.headers[key])
            self.send_header("content-length", str(len(said.content)))
            self.end_headers()
            self.wfile.write(said.content)

        def log_message(self, *_: object) -> None:
            pass

    with ExitStack() as stack:
        platform = Platform(moto, start, stack)
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
