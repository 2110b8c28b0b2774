"""Runs a command (``collect``) in a fork for each command and folder it reads; says the fork's number, then its end."""

from __future__ import annotations

import os
import sys

import pyarrow.parquet  # noqa: F401 (so that no fork has to import it)
import sqlalchemy  # noqa: F401

import treadle.cli.stages
import treadle.cycle  # noqa: F401
from treadle.cli.main import main


def say(number: int) -> None:
    os.write(1, f"{number}\n".encode())


def run(command: str, folder: str) -> int:
    os.dup2(2, 1)
    return main(["-C", folder, command, "--json"])


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 3
            try:
                code = run(*line.strip().split(maxsplit=1))
            finally:
                sys.stdout.flush()
                os._exit(code)
        os.setpgid(child, child)
        say(child)
        _, status = os.waitpid(child, 0)
        say(os.waitstatus_to_exitcode(status))
