"""SageMaker's own local mode on an image: ``sagemaker_local_mode.py FOLDER IMAGE PORT OUT``.

From the requests in a rendered folder to an answer: the question comes on standard input, and what the endpoint said
goes to OUT, as the containers' own words are on standard output.

The requests are the ones that AWS would get, but for two things that local mode asks for: the image is one of this
machine, and the model, which is inside it, needs a folder of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import boto3
from sagemaker.local import LocalSession


class Loopback(int):
    """A port, and what Docker is to publish: it would listen on every address of this machine."""

    def __str__(self) -> str:
        return f"127.0.0.1:{int(self)}"


QUIET = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
rendered, image, port = Path(sys.argv[1]), sys.argv[2], Loopback(sys.argv[3])
model, configuration, endpoint = (
    json.loads((rendered / f"create-{name}.json").read_text()) for name in ("model", "endpoint-config", "endpoint")
)
with tempfile.TemporaryDirectory() as empty:
    session = LocalSession(boto3.Session(region_name="eu-west-1"), sagemaker_config=QUIET)
    session.config = {"local": {"serving_port": port}}
    container = model["PrimaryContainer"] | {"Image": image, "ModelDataUrl": f"file://{empty}"}
    client = session.sagemaker_client
    client.create_model(**model | {"PrimaryContainer": container})
    client.create_endpoint_config(**configuration)
    named = endpoint["EndpointName"]
    try:
        client.create_endpoint(**endpoint)
        assert client.describe_endpoint(EndpointName=named)["EndpointStatus"] == "InService"
        said = session.sagemaker_runtime_client.invoke_endpoint(
            Body=sys.stdin.read(), EndpointName=named, ContentType="application/json", Accept="application/json"
        )["Body"]
        answer = said.read().decode()
        assert said.status == 200, answer
        Path(sys.argv[4]).write_text(answer)
    finally:  # without it the thread that watches the container would keep this process
        client.delete_endpoint(EndpointName=named)
