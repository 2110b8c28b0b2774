"""A model given away as ONNX files, and as a job that builds TensorRT engines of them for a Triton server.

The job is written here and has never been run: TensorRT installs only beside an NVIDIA card. What can be checked
without one is: the ONNX files, against the model and by ONNX's own checker.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from treadle.core.artifacts import Artifact
from treadle.core.errors import UserError
from treadle.exporting import Exported
from treadle.integrations.onnx_export import export
from treadle.lm.model_folder import longest as longest_of
from treadle.lm.optimizations import copy_beside

BUILD = "build.sh"
_BATCH, _LONGEST = 16, 512  # texts together, and tokens where the model names no limit
_NEW = 512  # tokens that a decoder is given at a time; the more, the fewer may be past then
_TYPES = {1: "TYPE_FP32", 7: "TYPE_INT64"}  # onnx.TensorProto's numbers, in Triton's words


def export_onnx(artifact: Artifact, name: str, out: Path) -> Exported:
    """The ONNX files of a model with its tokenizer, checked on 200 inputs, in a new folder.

    \b
    Example:
      treadle export onnx model@v1 --out ../onnx
    """
    with _new_folder("onnx", artifact, out) as building:
        found = export(artifact.path(), building)
        copy_beside(artifact.path(), building)
    said = f"{name} as {found.shape}, outputs at most {found.worst:.1g} off on {found.inputs} inputs"
    return _exported(out, said)


def export_tensorrt(artifact: Artifact, name: str, out: Path) -> Exported:
    """A Triton repository without its engines, and ``build.sh``, which builds them with ``trtexec`` beside a card.

    \b
    Example:
      treadle export tensorrt model@v1 --out ../triton
    """
    with _new_folder("tensorrt", artifact, out) as building:
        write_tensorrt(artifact.path(), name, building)
        (building / BUILD).chmod(0o755)
    return _exported(out, f"run {out / BUILD} beside an NVIDIA card, then: tritonserver --model-repository models")


def write_tensorrt(model: Path, name: str, out: Path, release: str | None = None) -> None:
    """The ONNX files, Triton's configuration of each, which names the release where there is one, and ``build.sh``."""
    export(model, out)
    longest = longest_of(model, _LONGEST)
    lines = [
        "#!/bin/sh",
        "# Builds the engines; run it where TensorRT is, on the card that will serve them.",
        "set -e",
        'cd "$(dirname "$0")"',
    ]
    for path in sorted(out.glob("*.onnx")):
        part = f"{name}-{path.stem}" if path.stem != "model" else name
        (out / "models" / part).mkdir(parents=True)
        graph = _checked(path)
        (out / "models" / part / "config.pbtxt").write_text(_triton(part, graph, release))
        lines += [f"mkdir -p models/{part}/1", _trtexec(path.name, f"models/{part}/1/model.plan", graph, longest)]
    (out / BUILD).write_text("\n".join([*lines, ""]))


def _trtexec(source: str, target: str, graph: Any, longest: int) -> str:
    shapes = []
    for kind, sizes in _extremes(longest).items():
        found = [
            f"{each.name}:" + "x".join(str(size or sizes[axis]) for axis, size in _axes(each)) for each in graph.input
        ]
        shapes.append(f"--{kind}Shapes={','.join(found)}")
    return " \\\n  ".join([f"trtexec --onnx={source} --saveEngine={target}", *shapes])


def _extremes(longest: int) -> dict[str, dict[str, int]]:
    """The least, the usual and the most of each axis that varies. A decoder's ``all`` is ``past`` and ``new`` in each,
    for TensorRT builds nothing of shapes that contradict each other; nothing is past at its first step."""
    most_new = max(1, min(_NEW, longest // 4))
    past = longest - most_new
    usual = min(64, past + 1)
    return {
        "min": {"texts": 1, "tokens": 1, "answer": 1, "new": 1, "past": 0, "all": 1},
        "opt": {"texts": 8, "tokens": usual, "answer": usual, "new": 1, "past": usual - 1, "all": usual},
        "max": {"texts": _BATCH, "tokens": longest, "answer": longest, "new": most_new, "past": past, "all": longest},
    }


def _triton(name: str, graph: Any, release: str | None) -> str:
    """Of https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md"""
    lines = [f'name: "{name}"', 'platform: "tensorrt_plan"', f"max_batch_size: {_BATCH}"]
    for word, values in (("input", graph.input), ("output", graph.output)):
        shown = []
        for each in values:
            dims = ", ".join(str(size or -1) for _, size in _axes(each)[1:])
            kind = _TYPES[each.type.tensor_type.elem_type]
            shown.append(f'  {{ name: "{each.name}" data_type: {kind} dims: [ {dims} ] }}')
        lines += [f"{word} [", ",\n".join(shown), "]"]
    lines.append("dynamic_batching { max_queue_delay_microseconds: 1000 }")
    if release is not None:
        lines.append(f'parameters {{ key: "treadle_release" value: {{ string_value: "{release}" }} }}')
    return "\n".join([*lines, ""])


def _axes(value: Any) -> list[tuple[str, int]]:
    """Names and sizes of a value's axes; the size is 0 where it varies."""
    return [(axis.dim_param, int(axis.dim_value)) for axis in value.type.tensor_type.shape.dim]


def _checked(path: Path) -> Any:
    import onnx

    onnx.checker.check_model(str(path), full_check=True)
    return onnx.load(str(path), load_external_data=False).graph


@contextmanager
def _new_folder(tool: str, artifact: Artifact, out: Path) -> Iterator[Path]:
    """Filled beside its place and moved there whole."""
    if out.exists():
        raise UserError(f"export {tool}: {out} is there already; name a new folder")
    if not artifact.has("config.json"):
        raise UserError(f"export {tool}: {artifact.digest[:11]} holds no model; expected one, such as model@v1")
    building = out.with_name(f".{out.name}.{token_hex(8)}")
    try:
        building.mkdir(parents=True)
        yield building
        building.rename(out)
    except OSError as error:
        raise UserError(f"export {tool}: cannot write {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _exported(out: Path, then: str) -> Exported:
    files = [path for path in out.rglob("*") if path.is_file()]
    return Exported(out, len(files), sum(path.stat().st_size for path in files), then)
