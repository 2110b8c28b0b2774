"""The Open Inference Protocol, version 2, over REST: what KServe, Triton and their clients speak.

Paths and shapes are those of github.com/kserve/open-inference-protocol, with Triton's extension for binary tensors.
Inputs are columns of instances: ``text``, or ``question`` and ``context``, and beside them what says how to answer
(``max_tokens``, ``temperature`` ...), which may stand in the request's ``parameters`` as well. A single input may
have any name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from treadle.serve.contracts.asking import (
    Parameters,
    Predictions,
    described,
    found_model,
    outputs_of,
    predict,
    rows_of,
    version_of,
)
from treadle.serve.contracts.contract import Contract, ContractPath, one_line
from treadle.serve.contracts.tensors import LENGTH_HEADER, InputTensor, Kind, TensorParameters, bytes_of, values_of
from treadle.serve.entry import try_to_catch_up
from treadle.serve.errors import SERVER, ApiError, invalid
from treadle.serve.generate import decode
from treadle.serve.incoming import Incoming
from treadle.serve.probes import live, ready
from treadle.serve.release import ServedRelease

_KINDS: dict[str, Kind] = {"text": "BYTES", "number": "FP32", "numbers": "FP32"}


class RequestParameters(Parameters, kw_only=True):
    """``binary_data_output``: all outputs are wanted behind the JSON."""

    binary_data_output: bool | None = None


class OutputTensor(Struct, forbid_unknown_fields=True, kw_only=True):
    """An output that is wanted; all of them without any."""

    name: Annotated[str, Meta(max_length=64)]
    parameters: TensorParameters | None = None


class InferRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """``POST /v2/models/M/infer``."""

    inputs: Annotated[list[InputTensor], Meta(min_length=1, max_length=32)]
    id: Annotated[str, Meta(max_length=128)] | None = None
    parameters: RequestParameters | None = None
    outputs: Annotated[list[OutputTensor], Meta(max_length=32)] | None = None


_decoder = msgspec.json.Decoder(InferRequest)


async def _infer(incoming: Incoming) -> None:
    head, rest = _cut(incoming, await incoming.body())
    body: InferRequest = decode(_decoder, head)
    given = body.parameters or RequestParameters()
    parameters = Parameters(**{name: getattr(given, name) for name in Parameters.__struct_fields__})
    rows = rows_of(values_of(body.inputs, rest))
    chosen = incoming.choose(found_model(incoming), parameters.user)
    kinds = _outputs(chosen.serving.release, body.outputs)
    found = await predict(incoming, rows, parameters, chosen)
    everywhere = bool(given.binary_data_output)
    binary = {wanted.name: _is_binary(wanted, everywhere=everywhere) for wanted in body.outputs or ()}
    outputs, behind = [], b""
    for name, kind in kinds.items():
        tensor, values = _tensor(name, kind, found)
        if binary.get(name, everywhere):
            data = bytes_of(kind, values)
            tensor["parameters"] = {"binary_data_size": len(data)}
            behind += data
        else:
            tensor["data"] = values
        outputs.append(tensor)
    content = {
        "model_name": found.release.base,
        "model_version": version_of(found.release.name),
        "id": body.id if body.id is not None else found.interactions[0],
        "parameters": {"interaction": ",".join(found.interactions), "release": found.release.digest},
        "outputs": outputs,
    }
    await _reply(incoming, content, behind, found.headers())


def _cut(incoming: Incoming, data: bytes) -> tuple[bytes, bytes]:
    """The JSON, and what stands behind it."""
    said = incoming.header(LENGTH_HEADER)
    if said is None:
        return data, b""
    if not (said.isascii() and said.isdigit() and int(said[:12]) <= len(data)):
        raise invalid(LENGTH_HEADER, f"{LENGTH_HEADER}: expected the length of the JSON, at most that of the body")
    return data[: int(said[:12])], data[int(said[:12]) :]


def _outputs(release: ServedRelease, wanted: Sequence[OutputTensor] | None) -> dict[str, Kind]:
    """The outputs that are wanted, each with its type. Raises 400."""
    known = {name: _KINDS[kind] for name, kind in outputs_of(release.asking).items()}
    if not wanted:
        return known
    for place, each in enumerate(wanted):
        if each.name not in known:
            raise invalid(f"outputs[{place}].name", f"outputs[{place}].name: expected one of {', '.join(known)}")
    return {each.name: known[each.name] for each in wanted}


def _is_binary(wanted: OutputTensor, *, everywhere: bool) -> bool:
    said = wanted.parameters.binary_data if wanted.parameters is not None else None
    return everywhere if said is None else said


def _tensor(name: str, kind: Kind, found: Predictions) -> tuple[dict[str, Any], list[Any]]:
    """Name, shape and type, and the values in their order."""
    column = [each.columns[name] for each in found.found]
    if name == "spans":
        column = [msgspec.json.encode(spans).decode() for spans in column]
    shape = [len(column)]
    if name in ("probabilities", "embedding"):
        rows = [list(row.values()) if isinstance(row, dict) else row for row in column]
        shape, column = [len(rows), len(rows[0])], [value for row in rows for value in row]
    return {"name": name, "shape": shape, "datatype": kind}, column


async def _reply(incoming: Incoming, content: dict[str, Any], behind: bytes, headers: dict[str, str]) -> None:
    if not behind:
        await incoming.reply(content, headers=headers)
        return
    head = msgspec.json.encode(content)
    headers[LENGTH_HEADER] = str(len(head))
    await incoming.reply_bytes(head + behind, "application/octet-stream", headers=headers)


async def _server(incoming: Incoming) -> None:
    await incoming.reply({"name": "treadle", "version": "2", "extensions": ["binary_tensor_data"]})


async def _model(incoming: Incoming) -> None:
    serving = described(incoming)
    release = serving.release
    names = ("question", "context") if release.asking == "extract" else ("text",)
    outputs = outputs_of(release.asking).items()
    content = {
        "name": release.base,
        "versions": [version_of(release.name)],
        "platform": f"treadle_{serving.engine.name}",
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in names],
        "outputs": [
            {"name": name, "datatype": _KINDS[kind], "shape": [-1, -1] if kind == "numbers" else [-1]}
            for name, kind in outputs
        ],
    }
    await incoming.reply(content, headers={"treadle-release": release.digest})


async def _model_ready(incoming: Incoming) -> None:
    release = described(incoming).release
    try_to_catch_up(incoming.gateway)
    if incoming.gateway.draining or not incoming.model.ready():
        raise ApiError(503, f"{release.name} does not answer now", type=SERVER, code="not_ready", retry_after=1)
    await incoming.reply({"name": release.base, "ready": True})


def _paths() -> tuple[ContractPath, ...]:
    title = "Open Inference Protocol: "
    paths = [
        ContractPath("GET", "/v2", _server, title + "the server.", "v2"),
        ContractPath("GET", "/v2/health/live", live, title + "200 while it lives.", is_open=True, is_probe=True),
        ContractPath("GET", "/v2/health/ready", ready, title + "200 while it answers.", is_open=True, is_probe=True),
    ]
    for place in ("/versions/{version}", ""):
        under = "/v2/models/{model}" + place
        paths += [
            ContractPath("GET", under, _model, title + "the model.", "v2", scope="models"),
            ContractPath("GET", under + "/ready", _model_ready, title + "200 while it answers.", "v2", scope="models"),
            ContractPath(
                "POST",
                under + "/infer",
                _infer,
                title + "infer.",
                "infer",
                takes=(InferRequest,),
                gives_also=("application/octet-stream",),
            ),
        ]
    return tuple(paths)


CONTRACT = Contract("Open Inference Protocol", _paths(), one_line)
