"""TensorFlow Serving's REST contract: ``:predict`` by rows or columns, ``:classify``, status, metadata.

Paths and shapes are those of tensorflow.org/tfx/serving/api_rest. The status of a model without a version shares its
path with OpenAI's description of a model; one answer serves both (``app.py``), since neither has a key of the other's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from treadle.serve.contracts.asking import (
    Encoded,
    Given,
    Instance,
    Parameters,
    Predictions,
    described,
    found_model,
    outputs_of,
    predict,
    rows_of,
    text_of,
    version_of,
)
from treadle.serve.contracts.contract import Contract, ContractPath, one_line
from treadle.serve.errors import invalid
from treadle.serve.generate import decode
from treadle.serve.incoming import Incoming
from treadle.serve.release import ServedRelease, Serving

SIGNATURE = "serving_default"
_TYPES = {"text": "DT_STRING", "number": "DT_FLOAT", "numbers": "DT_FLOAT"}
Column = Annotated[list[Any], Meta(min_length=1, max_length=256)]


class RowsOrColumns(Struct, forbid_unknown_fields=True, kw_only=True):
    """``instances`` are rows and come back as ``predictions``; ``inputs`` are columns and come back as ``outputs``."""

    signature_name: str | None = None
    instances: Annotated[list[Given], Meta(min_length=1, max_length=256)] | None = None
    inputs: str | Column | dict[str, Any] | None = None


class Examples(Struct, forbid_unknown_fields=True, kw_only=True):
    """Texts to label; what all share may stand in ``context``."""

    examples: Annotated[list[Instance], Meta(min_length=1, max_length=256)]
    signature_name: str | None = None
    context: Instance | None = None


_rows_decoder = msgspec.json.Decoder(RowsOrColumns)
_examples_decoder = msgspec.json.Decoder(Examples)


async def _predict(incoming: Incoming) -> None:
    body: RowsOrColumns = decode(_rows_decoder, await incoming.body())
    _check(body.signature_name)
    if (body.instances is None) is (body.inputs is None):
        raise invalid("instances", "instances: expected either instances (rows) or inputs (columns)")
    by_rows = body.instances is not None
    instances: Sequence[Given] = body.instances if body.instances is not None else _rows(body.inputs)
    found = await predict(incoming, instances, Parameters(), incoming.choose(found_model(incoming), None))
    content = {"predictions": [each.value for each in found.found]} if by_rows else {"outputs": _columns(found)}
    await incoming.reply(content, headers=found.headers())


async def _classify(incoming: Incoming) -> None:
    body: Examples = decode(_examples_decoder, await incoming.body())
    _check(body.signature_name)
    chosen = incoming.choose(found_model(incoming), None)
    release = chosen.serving.release
    if release.asking != "classify":
        raise invalid("model", f"model: {release.name} is not a classifier; use :predict", code="wrong_endpoint")
    if body.context is not None and body.context != Instance():
        raise invalid("context", "context: a classifier here takes a text alone")
    found = await predict(incoming, body.examples, Parameters(), chosen)
    result = [[[label, score] for label, score in each.columns["probabilities"].items()] for each in found.found]
    await incoming.reply({"result": result}, headers=found.headers())


def _check(signature: str | None) -> None:
    if signature not in (None, "", SIGNATURE):
        raise invalid("signature_name", f"signature_name: expected {SIGNATURE}, the only one there is")


def _rows(inputs: Any) -> list[Given]:
    columns = inputs if isinstance(inputs, dict) else {"text": inputs}
    if not columns:
        raise invalid("inputs", "inputs: expected at least one")
    listed = {name: value if isinstance(value, list) else [value] for name, value in columns.items()}
    return rows_of({name: [_decoded(each, name) for each in values] for name, values in listed.items()})


def _decoded(value: Any, name: str) -> Any:
    """A string of bytes comes as ``{"b64": ...}``."""
    if isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str):
        return text_of(Encoded(b64=value["b64"]), f"inputs.{name}")
    return value


def _columns(found: Predictions) -> Any:
    names = list(found.found[0].columns)
    columns = {name: [each.columns[name] for each in found.found] for name in names}
    return columns[names[0]] if len(names) == 1 else columns


async def _status(incoming: Incoming) -> None:
    serving = described(incoming)
    await incoming.reply(model_status(serving))


def model_status(serving: Serving) -> dict[str, Any]:
    """What the platform's clients wait for before they ask."""
    status = {"error_code": "OK", "error_message": ""}
    return {
        "model_version_status": [{"version": version_of(serving.release.name), "state": "AVAILABLE", "status": status}]
    }


async def _metadata(incoming: Incoming) -> None:
    release = described(incoming).release
    inputs = {"text": _tensor("text", "text")}
    outputs = {name: _tensor(name, kind) for name, kind in outputs_of(release.asking).items()}
    signature = {"inputs": inputs, "outputs": outputs, "method_name": "tensorflow/serving/predict"}
    content = {
        "model_spec": {"name": release.base, "signature_name": "", "version": version_of(release.name)},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }
    await incoming.reply(content, headers=_release(release))


def _release(release: ServedRelease) -> dict[str, str]:
    return {"treadle-release": release.digest}


def _tensor(name: str, kind: str) -> dict[str, Any]:
    size = [{"size": "-1", "name": ""}] * (2 if kind == "numbers" else 1)
    return {"dtype": _TYPES[kind], "tensor_shape": {"dim": size, "unknown_rank": False}, "name": name}


def _paths() -> tuple[ContractPath, ...]:
    """Each for the model, for a version of it, and for one that has an alias."""
    paths = []
    for place in ("/versions/{version}", "/labels/{label}", ""):
        under = "/v1/models/{model}" + place
        paths += [
            ContractPath(
                "POST",
                under + ":predict",
                _predict,
                "TensorFlow Serving: predict.",
                "tf_predict",
                takes=(RowsOrColumns,),
            ),
            ContractPath(
                "POST", under + ":classify", _classify, "TensorFlow Serving: label.", "tf_classify", takes=(Examples,)
            ),
            ContractPath(
                "GET", under + "/metadata", _metadata, "TensorFlow Serving: signatures.", "tf_metadata", scope="models"
            ),
        ]
        if place:
            paths.append(
                ContractPath("GET", under, _status, "TensorFlow Serving: status.", "tf_status", scope="models")
            )
    return tuple(paths)


CONTRACT = Contract("TensorFlow Serving", _paths(), one_line)
