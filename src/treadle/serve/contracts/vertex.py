"""Vertex AI's contract with a container: ``{"instances": [...], "parameters": {...}}`` in, ``predictions`` out.

The platform says in ``AIP_*`` variables where it will ask (cloud.google.com/vertex-ai/docs/predictions/
custom-container-requirements); it asks its clients for their credentials itself and passes no key on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from treadle.core.errors import UserError
from treadle.serve.contracts.asking import Given, Parameters, predict, version_of
from treadle.serve.contracts.contract import Contract, ContractPath
from treadle.serve.generate import decode
from treadle.serve.incoming import Incoming
from treadle.serve.probes import ready
from treadle.serve.requests import Name

PORT, HEALTH, PREDICT = "AIP_HTTP_PORT", "AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE"
_DEPLOYED = "AIP_DEPLOYED_MODEL_ID"
_DEFAULT = "/predict"


class VertexRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """``parameters`` hold for all instances; an instance that is an object may have its own. ``model`` is ours: the
    platform has one behind an endpoint."""

    instances: Annotated[list[Given], Meta(min_length=1, max_length=256)]
    model: Name | None = None
    parameters: Parameters | None = None


_decoder = msgspec.json.Decoder(VertexRequest)
_GIVES = {
    "type": "object",
    "properties": {
        "predictions": {"type": "array"},
        "deployedModelId": {"type": "string"},
        "model": {"type": "string"},
        "modelVersionId": {"type": "string"},
        "system_fingerprint": {"type": "string"},
    },
    "required": ["predictions", "deployedModelId", "model", "modelVersionId"],
}


async def _predict(incoming: Incoming) -> None:
    body: VertexRequest = decode(_decoder, await incoming.body())
    parameters = body.parameters or Parameters()
    found = await predict(incoming, body.instances, parameters, incoming.choose(body.model, parameters.user))
    content = {
        "predictions": [each.value for each in found.found],
        "deployedModelId": os.environ.get(_DEPLOYED) or found.release.digest,
        "model": found.release.name,
        "modelVersionId": version_of(found.release.name),
        "system_fingerprint": found.release.digest,  # the platform passes it on from rawPredict, and no header
    }
    await incoming.reply(content, headers=found.headers())


def contract(environment: Mapping[str, str] | None = None) -> Contract:
    """The contract at the paths that the variables name; a path of our own, such as OpenAI's, stays what it is.

    ``UserError`` where they name none that can be had.
    """
    environment = os.environ if environment is None else environment
    asked = _path(environment, PREDICT) or _DEFAULT
    paths = [
        ContractPath("POST", asked, _predict, "Vertex AI: predict.", "vertex", takes=(VertexRequest,), gives=_GIVES)
    ]
    health = _path(environment, HEALTH)
    if health is not None and health == asked:
        raise UserError(f"{HEALTH}: {health} is {PREDICT} as well; give each its own path")
    if health is not None and health != "/health/ready":
        summary = "Vertex AI: 200 while requests are answered."
        paths.append(ContractPath("GET", health, ready, summary, is_open=True, is_probe=True))
    return Contract("Vertex AI", tuple(paths))


def port(environment: Mapping[str, str] | None = None) -> int | None:
    """Where the platform will ask; None where it says nothing. ``UserError`` for what is no port."""
    said = (os.environ if environment is None else environment).get(PORT)
    if not said:
        return None
    if not said.isascii() or not said.isdigit() or not 0 < int(said[:6]) <= 65535:
        raise UserError(f"{PORT}: {said!r} is no port; expected a number from 1 to 65535")
    return int(said)


def _path(environment: Mapping[str, str], name: str) -> str | None:
    said = environment.get(name)
    if not said:
        return None
    if not said.startswith("/") or set(said) & set("{}?# ") or not said.isprintable():
        raise UserError(f"{name}: {said!r} is no path; expected one such as {_DEFAULT}")
    return said
