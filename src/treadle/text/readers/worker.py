"""The process that readers run in: one document after the other from stdin, its pieces to stdout, until stdin ends.

A document has a limit on processor time, set by the kernel, which ends the process; memory is limited for the process.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from typing import Any, BinaryIO

from treadle.core.errors import MissingExtra
from treadle.text.readers.catalog import reader_of
from treadle.text.readers.piece import Documents, UnreadableError, to_json

LENGTH = struct.Struct(">Q")


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    requests = sys.stdin.buffer
    limited = False
    while True:
        request = _request(requests)
        if request is None:
            return
        kind, options, data = request
        if not limited:
            _limit_memory(options.memory)
            limited = True
        _limit_time(options.seconds)
        answer = _read(kind, data, options)
        encoded = json.dumps(answer).encode("ascii")
        answers.write(LENGTH.pack(len(encoded)) + encoded)
        answers.flush()
        if not answer.get("sound", True):
            return


def _request(stream: BinaryIO) -> tuple[str, Documents, bytes] | None:
    length = stream.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    header = json.loads(stream.read(*LENGTH.unpack(length)))
    data = stream.read(header["bytes"])
    return header["kind"], Documents(**header["options"]), data


def _read(kind: str, data: bytes, options: Documents) -> dict[str, Any]:
    """The answer: pieces, why the rest is none, and whether this process is still fit for the next document."""
    pieces: list[dict[str, Any]] = []
    reason, sound = "", True
    try:
        pieces.extend(to_json(piece) for piece in reader_of(kind)(data, options))
    except UnreadableError as error:
        reason = str(error)
    except MissingExtra as error:
        return {"missing": [error.package, error.extra]}
    except MemoryError:
        reason, sound = f"needs more than {options.memory} MiB of memory to read", False
    except RecursionError:
        reason = "nested too deep"
    except Exception as error:  # whatever a parser raises over a document is about that document
        reason = f"the reader failed: {type(error).__name__}"
    except BaseException as error:  # a native library in panic
        reason, sound = f"the reader failed: {type(error).__name__}", False
    return {"pieces": pieces, "reason": reason, "sound": sound}


def _limit_memory(mebibytes: int) -> None:
    """On top of what the process has now."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            now = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return  # a system without /proc does not keep this limit either
    _lower(resource.RLIMIT_AS, now + (mebibytes << 20))


def _limit_time(seconds: int) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + seconds + 1)


def _lower(which: int, wanted: int) -> None:
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    main()
