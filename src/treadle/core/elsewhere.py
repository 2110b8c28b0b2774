"""A step on another machine: only objects that are missing move, the run and its rows stay where they are.

    here                              there: python -m treadle.core.elsewhere FOLDER
    begin: step, settings, inputs  -> checks that step and packages are the same
                                   <- held: what lies there; gone: what of it does not lie here any more, and is deleted
                                   <- want: what is missing of the inputs
    objects                        -> runs the step
                                   <- progress, points, at last done: outputs and final numbers
    want: what is missing of them  -> objects

The other machine's folder keeps what it was sent, and a training's checkpoints, for the next time. It ends when the
connection does.
"""

from __future__ import annotations

import importlib
import os
import select
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from treadle.core.artifacts import Artifact
from treadle.core.channel import Channel, Gone
from treadle.core.digest import PREFIX, blake3_bytes, is_digest
from treadle.core.errors import Corrupt, TreadleError, UserError
from treadle.core.executors import InProcess
from treadle.core.journal import Journal
from treadle.core.run import Points, Run
from treadle.core.steps import Call, Input, Step, bind, execute, output_names
from treadle.core.store import Store

FORMAT = 1
_ENVIRONMENT = ("TREADLE_CHECKPOINT_SECONDS", "OMP_NUM_THREADS")  # what of it goes along
_OWNER = "elsewhere"  # keyed by a project, the name of its own folder there


# -- here


def conduct(channel: Channel, call: Call, run: Run) -> dict[str, Artifact]:
    """Let the other side run a step; its artifacts, in the run's store. ``Gone`` when the other side is.

    Errors that the step raised there are raised here.
    """
    if run.store.cipher is not None:
        raise UserError("develop.on: the store is encrypted, and another machine's copy would not be; train here")
    module = call.step.function.__module__
    told = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    who = {"owner": blake3_bytes(run.keyed(_OWNER).encode()), "run": run.id}
    channel.say("begin", format=FORMAT, module=module, environment=told, call=call.ingredients(), **who)
    while True:
        heard = channel.hear("held", "want", "progress", "points", "done", "failed")
        kind = heard["kind"]
        if kind == "held":
            held = [each for each in heard["digests"] if isinstance(each, str) and is_digest(each)]
            channel.say("gone", digests=[each for each in held if not run.store.has_object(each)])
        elif kind == "want":
            channel.give(run.store, heard["digests"], call.artifacts())
        elif kind == "progress":
            run.progress(float(heard["done"]), heard["total"], str(heard["unit"])[:40], str(heard["note"])[:200])
        elif kind == "points":
            run.log_many([(step, _numbers(values)) for step, values in heard["points"]])
        elif kind == "failed":
            raise (UserError if heard["user"] else TreadleError)(str(heard["message"])[:10_000])
        else:
            return _brought(channel, call, run, heard)


def _brought(channel: Channel, call: Call, run: Run, heard: dict[str, Any]) -> dict[str, Artifact]:
    names = output_names(call.step)
    digests = heard["outputs"]
    if sorted(digests) != sorted(names) or not all(is_digest(str(digest)) for digest in digests.values()):
        raise Corrupt(f"the other machine gave other outputs than those of {call.step.name}")
    channel.fetch(run.store, digests.values())
    channel.say("bye")
    run.summary(**_numbers(heard["metrics"]), objects_moved=channel.moved)
    kinds = zip(names, call.step.signature.outputs, strict=True)
    return {name: kind(digests[name], run.store) for name, kind in kinds}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name)[:100]: float(value) for name, value in values.items()}


# -- there


class _Keeper:
    """What a run asks of those who keep it, on the other machine."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.journal = cast("Journal", None)  # nothing is written there: ``_DistantRun`` sends it

    def keyed_person(self, person: str) -> str:
        raise TreadleError("a step that asks for people's keys cannot run on another machine")


class _DistantRun(Run):
    """Tells the one who asked what a step says."""

    def __init__(self, channel: Channel, store: Store, identifier: str, seed: int, folder: Path) -> None:
        super().__init__(_Keeper(store), identifier, seed, self._tell, folder, InProcess())
        self._channel = channel

    def _tell(self, done: float, total: float | None, unit: str, note: str) -> None:
        self._channel.say("progress", done=done, total=total, unit=unit, note=note)

    def log(self, step: int | None = None, **metrics: float) -> None:
        self.log_many([(step, metrics)])

    def log_many(self, points: Points) -> None:
        self._channel.say("points", points=[[step, dict(values)] for step, values in points])


def serve(channel: Channel, folder: Path) -> int:
    """Run one step for whoever is at the other end; the exit code. Each project has a folder of its own in it."""
    try:
        begin = channel.hear("begin")
        if begin["format"] != FORMAT or not is_digest(str(begin["owner"])):
            raise UserError(f"develop.on: the other machine speaks format {FORMAT}; install the same Treadle there")
        own = folder / str(begin["owner"]).removeprefix(PREFIX)[:32]
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = Store(own)
        try:
            _serve(channel, store, begin)
        finally:
            store.close()
    except Gone:
        return 1
    except TreadleError as error:
        channel.say("failed", user=isinstance(error, UserError), message=str(error))
        return 1
    except Exception:  # whatever a step raises is told where it was asked for
        channel.say("failed", user=False, message=traceback.format_exc())
        return 1
    return 0


def _serve(channel: Channel, store: Store, begin: dict[str, Any]) -> None:
    os.environ.update({name: str(begin["environment"][name]) for name in _ENVIRONMENT if name in begin["environment"]})
    asked = begin["call"]
    step = _step(str(begin["module"]), asked)
    store.clear_temporary()
    channel.say("held", digests=sorted(store.names()))
    gone = channel.hear("gone")["digests"]
    if gone:
        store.delete(set(gone))
    inputs = asked["inputs"]
    named = [each for value in inputs.values() for each in (value if isinstance(value, list) else [value]) if each]
    channel.fetch(store, named)
    given = [_handles(inputs[name], kind, store) for name, kind in _kinds(step)]
    call = bind(step, tuple(given), asked["settings"], int(asked["seed"] or 0))
    watch = threading.Thread(target=_end_with_the_connection, daemon=True)
    watch.start()
    run = _DistantRun(channel, store, str(begin["run"]), call.seed, store.root)
    made = execute(call, run)
    outputs = {name: artifact.digest for name, artifact in made.items()}
    channel.say("done", outputs=outputs, metrics=run.metrics)
    while (heard := channel.hear("want", "bye"))["kind"] == "want":
        channel.give(store, heard["digests"], made.values())


def _kinds(step: Step[Any]) -> list[tuple[str, type[Artifact]]]:
    return list(zip(step.signature.inputs, step.signature.kinds, strict=True))


def _handles(value: Any, kind: type[Artifact], store: Store) -> Input:
    """An input, or several, or none, by its digest."""
    if isinstance(value, list):
        return tuple(kind(each, store) for each in value)
    return kind(value, store) if value else None


def _step(name: str, asked: dict[str, Any]) -> Step[Any]:
    """The step that is asked for, if it is the same here."""
    module = importlib.import_module(name)
    for value in vars(module).values():
        if isinstance(value, Step) and value.name == asked["step"]:
            break
    else:
        raise UserError(f"develop.on: the other machine's Treadle has no step {asked['step']}; install the same one")
    here = bind_versions(value)
    for what, wanted in {"version": asked["version"], **asked["packages"]}.items():
        if here[what] != wanted:
            thing = f"version of {value.name}" if what == "version" else what
            raise UserError(
                f"develop.on: the other machine has {thing} {here[what]}, and this one {wanted}; what they make would "
                "not be the same: install the same there"
            )
    return value


def bind_versions(step: Step[Any]) -> dict[str, Any]:
    """Of a step and the packages it declares, as they are here."""
    known = Call(step, {}, {}, 0).ingredients()
    return {"version": known["version"], **known["packages"]}


def _end_with_the_connection() -> None:
    poll = select.poll()
    poll.register(0, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    while not poll.poll():
        pass
    os._exit(1)


def main(folder: str) -> int:
    """Talk over standard input and output; what libraries print goes to standard error."""
    writer: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return serve(Channel(sys.stdin.buffer, writer), Path(folder).expanduser().absolute())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
