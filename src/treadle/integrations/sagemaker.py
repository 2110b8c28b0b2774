"""The target ``sagemaker``: the image of target docker behind an Amazon SageMaker endpoint.

The files are the requests themselves, as ``aws sagemaker create-model --cli-input-json file://create-model.json`` takes
them. Models and endpoint configurations are named by what is in their requests, so that applying a folder again changes
nothing, and applying an older one goes back to it. The platform asks its clients for credentials and passes no key on,
so the container answers without one; it has no network of its own.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import MissingExtra, UserError
from treadle.stages.deploy.call import Call, request_file, request_in
from treadle.stages.deploy.targets import Plan, Rendering, Written, check_image, question

MODEL, CONFIG, ENDPOINT = "create-model.json", "create-endpoint-config.json", "create-endpoint.json"
_PORT = 8080  # where the platform asks: docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
_LONGEST = 2400.0  # seconds that an endpoint gets to change
_STARTING = 600  # seconds that a container gets to answer /ping
_PAUSE = 10.0  # seconds between two looks at an endpoint that changes, at most
_UNDER_WAY = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/\S{1,512}")
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


class SageMaker:
    """An Amazon SageMaker endpoint of the image of target docker, by requests to its API."""

    tool = "boto3"

    def __init__(
        self,
        *,
        image: str,
        role: str,
        endpoint: str = "",
        instance: str = "ml.m5.xlarge",
        instances: int = 1,
        region: str = "",
    ) -> None:
        """``image`` as it was pushed to ECR, ``role`` the ARN that SageMaker takes on; ``endpoint`` is named as the
        model where it is left out, ``region`` what the AWS configuration says."""
        if not image or len(image) > 255:
            raise UserError("target sagemaker: image: expected the image that target docker made, as pushed to ECR")
        check_image("sagemaker", image)
        if not _ROLE.fullmatch(role):
            raise UserError("target sagemaker: role: expected an ARN such as arn:aws:iam::123456789012:role/NAME")
        if endpoint and not _NAME.fullmatch(endpoint):
            raise UserError("target sagemaker: endpoint: expected letters, digits and hyphens, at most 63")
        if instances < 1:
            raise UserError(f"target sagemaker: instances: expected 1 or more, not {instances}")
        self._image, self._role, self._endpoint = image, role, endpoint
        self._instance, self._instances, self._region = instance, instances, region

    def render(self, release: Rendering) -> Mapping[str, bytes]:
        """As `Target.render`."""
        tags = [{"Key": "treadle:release", "Value": release.digest}, {"Key": "treadle:model", "Value": release.model}]
        container = {
            "Image": self._image,
            "Environment": {
                "TREADLE_HOST": "0.0.0.0",  # noqa: S104 (only the platform reaches it)
                "TREADLE_PORT": str(_PORT),
                "TREADLE_NO_KEY": "1",
                "TREADLE_RELEASE_DIGEST": release.digest,
            },
        }
        model: dict[str, Any] = {
            "PrimaryContainer": container,
            "ExecutionRoleArn": self._role,
            "EnableNetworkIsolation": True,
            "Tags": tags,
        }
        model = {"ModelName": _named(release.slug, model), **model}
        variant = {
            "VariantName": "release",
            "ModelName": model["ModelName"],
            "InstanceType": self._instance,
            "InitialInstanceCount": self._instances,
            "InitialVariantWeight": 1.0,
            "ContainerStartupHealthCheckTimeoutInSeconds": _STARTING,
        }
        config: dict[str, Any] = {"ProductionVariants": [variant], "Tags": tags}
        config = {"EndpointConfigName": _named(release.slug, config), **config}
        endpoint = {
            "EndpointName": self._endpoint or release.slug,
            "EndpointConfigName": config["EndpointConfigName"],
            "Tags": [{"Key": "treadle:name", "Value": release.spec.name}],
        }
        return {MODEL: request_file(model), CONFIG: request_file(config), ENDPOINT: request_file(endpoint)}

    def apply(self, written: Written) -> Plan:
        """As `Target.apply`."""
        account = Account(self._region)
        name = self._endpoint or written.slug
        return Plan(
            endpoint=self._address(name),
            commands=(
                Call(f"SageMaker CreateModel, unless it is there: {MODEL}", account.create_model),
                Call(f"SageMaker CreateEndpointConfig, unless it is there: {CONFIG}", account.create_config),
                Call(f"SageMaker CreateEndpoint, or UpdateEndpoint: {ENDPOINT}", account.put_endpoint),
            ),
            ask=lambda of: account.invoke(name, question(of.asking)),
        )

    def down(self, written: Written) -> Plan:
        """As `Target.down`; an endpoint that another release is behind stays."""
        account = Account(self._region)
        return Plan(
            endpoint=self._address(self._endpoint or written.slug),
            commands=(
                Call(f"SageMaker DeleteEndpoint of {ENDPOINT}", account.delete_endpoint),
                Call(f"SageMaker DeleteEndpointConfig of {CONFIG}", account.delete_config),
                Call(f"SageMaker DeleteModel of {MODEL}", account.delete_model),
            ),
        )

    def _address(self, name: str) -> str:
        return f"sagemaker://{self._region}/{name}" if self._region else f"sagemaker:{name}"


class Account:
    """SageMaker's API, as whom and where the AWS configuration says. ``UserError`` where the platform refuses."""

    def __init__(self, region: str = "") -> None:
        self._region = region

    @cached_property
    def client(self) -> Any:
        """Of the service that makes endpoints."""
        return self._client("sagemaker")

    def create_model(self, folder: Path) -> None:
        """As the folder's request says, unless there is one of that name."""
        request = request_in(folder, MODEL, "ModelName")
        if self._found("DescribeModel", self.client.describe_model, ModelName=request["ModelName"]) is None:
            with _refusals("CreateModel"):
                self.client.create_model(**request)

    def create_config(self, folder: Path) -> None:
        """As the folder's request says, unless there is one of that name."""
        request = request_in(folder, CONFIG, "EndpointConfigName")
        name = {"EndpointConfigName": request["EndpointConfigName"]}
        if self._found("DescribeEndpointConfig", self.client.describe_endpoint_config, **name) is None:
            with _refusals("CreateEndpointConfig"):
                self.client.create_endpoint_config(**request)

    def put_endpoint(self, folder: Path) -> None:
        """Make the endpoint, or lead it to this configuration, and wait until it answers with it."""
        request = request_in(folder, ENDPOINT, "EndpointName", "EndpointConfigName")
        name, wanted = request["EndpointName"], request["EndpointConfigName"]
        there = self._settled(name)
        if there is None:
            with _refusals("CreateEndpoint"):
                self.client.create_endpoint(**request)
        elif there["EndpointConfigName"] != wanted:
            with _refusals("UpdateEndpoint"):
                self.client.update_endpoint(EndpointName=name, EndpointConfigName=wanted)
        there = self._settled(name)
        state = "gone" if there is None else there["EndpointStatus"]
        if there is None or state != "InService" or there["EndpointConfigName"] != wanted:
            why = (there or {}).get("FailureReason") or "no reason given"
            raise UserError(
                f"SageMaker: endpoint {name} is {state} and not behind {wanted}: {why};"
                " one that failed has to be taken away first: treadle apply sagemaker DIR --down"
            )

    def invoke(self, name: str, body: Mapping[str, Any]) -> Any:
        """What the container behind an endpoint answers."""
        runtime = self._client("sagemaker-runtime")
        with _refusals("InvokeEndpoint"):
            said = runtime.invoke_endpoint(
                EndpointName=name, ContentType="application/json", Accept="application/json", Body=json.dumps(body)
            )
            data = said["Body"].read()
        try:
            return json.loads(data)
        except ValueError:
            raise UserError(f"SageMaker: endpoint {name} answered something that is no JSON") from None

    def delete_endpoint(self, folder: Path) -> None:
        """Unless another release is behind it, and wait until it is gone."""
        request = request_in(folder, ENDPOINT, "EndpointName", "EndpointConfigName")
        name, ours = request["EndpointName"], request["EndpointConfigName"]
        there = self._settled(name)
        if there is None:
            return
        if there["EndpointConfigName"] != ours:
            raise UserError(
                f"SageMaker: endpoint {name} is behind {there['EndpointConfigName']} by now, not {ours}; it was left"
                " there: use the folder that was applied last"
            )
        with _refusals("DeleteEndpoint"):
            self.client.delete_endpoint(EndpointName=name)
        if self._settled(name) is not None:
            raise UserError(f"SageMaker: endpoint {name} was not deleted; the console of SageMaker says why")

    def delete_config(self, folder: Path) -> None:
        """Where it is there."""
        name = {"EndpointConfigName": request_in(folder, CONFIG, "EndpointConfigName")["EndpointConfigName"]}
        if self._found("DescribeEndpointConfig", self.client.describe_endpoint_config, **name) is not None:
            with _refusals("DeleteEndpointConfig"):
                self.client.delete_endpoint_config(**name)

    def delete_model(self, folder: Path) -> None:
        """Where it is there."""
        name = {"ModelName": request_in(folder, MODEL, "ModelName")["ModelName"]}
        if self._found("DescribeModel", self.client.describe_model, **name) is not None:
            with _refusals("DeleteModel"):
                self.client.delete_model(**name)

    def _settled(self, name: str) -> dict[str, Any] | None:
        """An endpoint when it no longer changes, None when there is none."""
        until, pause = time.monotonic() + _LONGEST, 0.5
        while True:
            there = self._found("DescribeEndpoint", self.client.describe_endpoint, EndpointName=name)
            if there is None or there["EndpointStatus"] not in _UNDER_WAY:
                return there
            if time.monotonic() > until:
                raise UserError(f"SageMaker: endpoint {name} is {there['EndpointStatus']} since {_LONGEST:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE)

    def _found(self, what: str, describe: Any, **name: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        with _refusals(what):
            try:
                found: dict[str, Any] = describe(**name)
            except ClientError as error:
                if "could not find" in error.response["Error"].get("Message", "").lower():
                    return None
                raise
            return found

    def _client(self, service: str) -> Any:
        try:
            import boto3
        except ImportError:
            raise MissingExtra("boto3", extra="aws") from None
        with _refusals(f"the client of {service}"):
            return boto3.client(service, region_name=self._region or None)


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        raise UserError(f"SageMaker {what}: {said.get('Code')}: {_line(said.get('Message', ''))}") from None
    except BotoCoreError as error:
        raise UserError(f"SageMaker {what}: {_line(str(error))}") from None


def _line(text: str) -> str:
    return " ".join(text.split())[:400]


def _named(slug: str, request: Mapping[str, Any]) -> str:
    """A name that says what is in the request."""
    return f"{slug}-{blake3_bytes(canonical_json(request))[3:15]}"
