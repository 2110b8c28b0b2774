"""Labels over HTTP, beside the app that most people would write: FastAPI around transformers' ``pipeline``.

MiniLM, trained for a moment on the intents of BANKING77, is asked for one text a request over sixteen connections.
``classify``: ours in the way that ``treadle optimize`` finds fastest (``deploy.optimization: {way: onnx-int8}``), with
all that the server does around it. ``classify_openvino``: as OpenVINO IR, whose numbers are not made smaller.
``classify_unchanged``: ours as it was trained, by torch, which is what is released where nobody asks for more.

The app runs the same torch and transformers as we do, on the same cores. It is started as its authors might: handlers
in threads, in the event loop, and in two processes with a thread each; the fastest is what we are compared with.
"""

from __future__ import annotations

import json
import statistics
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import http_load
from benchmarks.optimize import intents, train_classifier
from benchmarks.peers import PeerServer, environment, fastest, peer_server
from benchmarks.serve_peers import cores
from benchmarks.server import serve, worker

CONNECTIONS = 16
MODULE = "app"
_PACKAGES = ("fastapi", "uvicorn")  # those of this environment
_APP = """
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

app = FastAPI()
classifier = pipeline("text-classification", model={model!r})


class Asked(BaseModel):
    text: str


@app.post("/classify")
{how} classify(asked: Asked) -> dict:
    return classifier(asked.text)[0]


@app.get("/health")
def health() -> dict:
    return {{}}
"""
_WAYS = {"threads": ("def", 1), "event loop": ("async def", 1), "processes": ("async def", 2)}


@dataclass(frozen=True)
class Side:
    """A server: ``awake`` gives its URL, ``body`` a request for a text, ``label`` what an answer says of it."""

    awake: Callable[[], AbstractContextManager[str]]
    path: str
    body: Callable[[str], dict[str, Any]]
    label: Callable[[Any], str]

    def rate(self, texts: Sequence[str]) -> float:
        """Texts a second, one a request."""
        requests = [http_load.request_bytes(self.path, self.body(text)) for text in texts]
        with self.awake() as url:
            return http_load.side_by_side(url, requests, len(requests), CONNECTIONS)

    def labels(self, texts: Sequence[str]) -> list[str]:
        """What it says of each text."""
        found = []
        with self.awake() as url:
            for text in texts:
                data, head = json.dumps(self.body(text)).encode(), {"content-type": "application/json"}
                with urllib.request.urlopen(urllib.request.Request(url + self.path, data, head), timeout=60) as answer:
                    found.append(self.label(json.load(answer)))
        return found


def theirs(awake: Callable[[], AbstractContextManager[str]]) -> Side:
    """The app."""
    return Side(awake, "/classify", lambda text: {"text": text}, lambda said: str(said["label"]))


def ours(url: str) -> Side:
    """Our server."""
    return Side(
        lambda: nullcontext(url),
        "/v1/classify",
        lambda text: {"input": text},
        lambda said: str(said["data"][0]["label"]),
    )


def measured(scratch: Path, *, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """The ratios, texts a second, and the part of the labels that are the app's."""
    model, openvino, int8 = lay_out(scratch)
    texts = [row["text"] for row in intents("test", quick=True)][: 100 if quick else 768]
    folder = environment("fastapi", *_PACKAGES, ours=True)
    ways = {name: partial(app, folder, model, scratch, *each) for name, each in _WAYS.items()}
    rates = fastest(ways, lambda url: theirs(lambda: nullcontext(url)).rate(texts[:200]))
    found: dict[str, list[float]] = {}
    with ExitStack() as together:
        server = together.enter_context(ways[next(iter(rates))]())
        unchanged, _ = together.enter_context(worker(_serve_unchanged, model))
        by_openvino, _ = together.enter_context(worker(_serve_openvino, openvino))
        by_onnx, _ = together.enter_context(worker(_serve_int8, int8))
        sides = {"app": theirs(server.awake), "unchanged": ours(unchanged)}
        sides |= {"openvino": ours(by_openvino), "int8": ours(by_onnx)}
        labels = {name: side.labels(texts[:256]) for name, side in sides.items()}
        names = list(sides)
        for number in range(1 if quick else 6):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                found.setdefault(name, []).append(sides[name].rate(texts))

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(found[name], found["app"], strict=True))

    figures = {
        "classify_texts_per_second": {name: round(statistics.median(each), 1) for name, each in found.items()},
        "classify_app_texts_per_second_by_way": {name: round(value, 1) for name, value in rates.items()},
        "classify_same_label": {name: _same(each, labels["app"]) for name, each in labels.items() if name != "app"},
    }
    ratios = {f"classify_{name}": ratio(name) for name in ("openvino", "unchanged")}
    return {"classify": ratio("int8"), **ratios}, figures


def lay_out(scratch: Path) -> tuple[Path, Path, Path]:
    """The classifier as it was trained, as OpenVINO IR, and as ONNX with weights and activations of 8 bits."""
    from treadle.lm.optimization import Material, load

    model = scratch / "classifier"
    train_classifier(model, list(intents("train", quick=True)), quick=True)
    made = []
    for way in ("openvino", "onnx-int8"):
        made.append(scratch / f"classifier-{way}")
        passing = scratch / f"passing-{way}"
        for folder in (made[-1], passing):
            folder.mkdir()
        load(way).write(Material(model, passing), made[-1])
    return model, made[0], made[1]


def app(folder: Path, model: Path, scratch: Path, how: str, processes: int) -> AbstractContextManager[PeerServer]:
    """The app by uvicorn; several processes share the cores."""
    (scratch / f"{MODULE}.py").write_text(_APP.format(model=str(model), how=how))
    threads = {"OMP_NUM_THREADS": str(max(1, len(cores()) // processes))} if processes > 1 else {}
    quiet = ("--log-level", "warning", "--no-access-log", "--workers", str(processes))
    return peer_server(
        lambda port: [folder / "bin" / "python", "-m", "uvicorn", f"{MODULE}:app", "--port", str(port), *quiet],
        scratch / "app.log",
        ready="/health",
        variables={"HF_HUB_OFFLINE": "1", **threads},
    )


def _serve_unchanged(folder: Path, connection: Connection) -> None:
    _serve(folder, connection, "transformers")


def _serve_openvino(folder: Path, connection: Connection) -> None:
    _serve(folder, connection, "openvino")


def _serve_int8(folder: Path, connection: Connection) -> None:
    _serve(folder, connection, "onnx")


def _serve(folder: Path, connection: Connection, engine: str) -> None:
    from treadle.lm.engines import open_engine

    serve(folder, connection, lambda: open_engine(engine, folder), task="classify", asking="classify")


def _same(labels: list[str], others: list[str]) -> float:
    return round(statistics.fmean(a == b for a, b in zip(labels, others, strict=True)), 3)
