"""The commands, each loaded when it is called, so that ``treadle --help`` answers at once."""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import click

from treadle.core.errors import TreadleError, UserError, nearest

# Command -> module under treadle.cli; in the order of the help page, by what people do first.
COMMANDS = {
    "init": "init",
    "plan": "cycle",
    "run": "cycle",
    "watch": "watch",
    "collect": "collect",
    "prepare": "stages",
    "develop": "develop",
    "track": "stages",
    "deploy": "stages",
    "monitor": "stages",
    "govern": "stages",
    "improve": "stages",
    "import": "importing",
    "export": "exporting",
    "mirror": "mirror",
    "lock": "locking",
    "checkout": "locking",
    "serve": "serve",
    "keys": "keys",
    "render": "render",
    "apply": "render",
    "load": "load",
    "listen": "listen",
    "console": "console",
    "ask": "ask",
    "feedback": "feedback",
    "lineage": "lineage",
    "status": "status",
    "runs": "runs",
    "diff": "diff",
    "explore": "explore",
    "evaluate": "evaluate",
    "optimize": "optimize",
    "models": "models",
    "approve": "approval",
    "reject": "approval",
    "rollback": "rollback",
    "forget": "forget",
    "verify": "verify",
    "head": "head",
    "prove": "prove",
    "push": "exchange",
    "pull": "exchange",
    "gc": "gc",
    "encrypt": "encrypt",
    "backup": "backup",
    "restore": "backup",
    "rebuild": "rebuild",
    "doctor": "doctor",
    "schema": "schema",
}

SUMMARIES = {
    "init": "Make a working project.",
    "plan": "Say what would run, and why.",
    "run": "Run the cycle: all eight stages.",
    "watch": "The loop, unattended: the next turn when it is due.",
    "collect": "Stage 1: text from its sources.",
    "prepare": "Stage 2: clean it, make examples, split.",
    "develop": "Stage 3: train and evaluate, or say what it will take.",
    "track": "Stage 4: versions and aliases.",
    "deploy": "Stage 5: optimize, build a release, try it.",
    "monitor": "Stage 6: latency, errors, drift.",
    "govern": "Stage 7: gates, approval, promotion.",
    "improve": "Stage 8: what feedback has come in.",
    "import": "A way in: models, logs, feedback and data that you have.",
    "export": "Give a version to another tool.",
    "mirror": "Bring other trackers up to date: what was delivered, what waits, and why.",
    "lock": "Pin what this commit was built with in treadle.lock.",
    "checkout": "Make what treadle.lock names current again.",
    "serve": "Serve a release through an OpenAI-style API.",
    "keys": "API keys of the server: make, list, revoke; budgets and limits.",
    "render": "Write a release as the files that Docker, Kubernetes or another target takes.",
    "apply": "Put rendered files to work, and ask what runs there.",
    "load": "Put load on a server, and measure what its users would see.",
    "listen": "Let another tool's programs log here, unchanged.",
    "console": "The web page: see the loop, correct, label, approve.",
    "ask": "Ask the deployed model, and see what the answer came from.",
    "feedback": "Record what you think of an answer, or list feedback.",
    "lineage": "Follow anything back to its documents, or a document to its answers.",
    "status": "Where everything stands.",
    "runs": "List runs with parameters and metrics.",
    "diff": "What changed between two versions or runs.",
    "explore": "One page that shows a corpus or a dataset, or what changed between two.",
    "evaluate": "Evaluate any model on any items, and compare it with another.",
    "optimize": "Measure ways of making a model smaller or faster, and draw the frontier.",
    "models": "What training can begin from, and what of it fits this machine.",
    "approve": "Approve a version that waits for it.",
    "reject": "Refuse a version.",
    "rollback": "Take back what is new: the canary, or the champion for the one before.",
    "forget": "Erase a person, rebuild without them, and prove it.",
    "verify": "Check that nothing was tampered with.",
    "head": "The latest signed head of the ledger; publish it.",
    "prove": "Files that prove to anybody that something stands in the ledger.",
    "push": "Send what a remote lacks.",
    "pull": "Fetch what is missing or damaged here.",
    "gc": "Free what nothing in the record needs.",
    "encrypt": "Encrypt what the store holds, or change its key.",
    "backup": "Everything but the objects in one file.",
    "restore": "Put a backup back, and say what is lost by it.",
    "rebuild": "Run the steps behind an artifact again, and compare.",
    "doctor": "What works on this machine, and how to get the rest.",
    "schema": "The JSON Schema of treadle.yaml, for editors.",
}


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_INSTALLED = {"site-packages", "dist-packages"}


class LazyGroup(click.Group):
    """Imports a command's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of ``COMMANDS``."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"treadle.cli.{COMMANDS[cmd_name]}")
        # ``import`` is a word of Python's, so that command's function is called ``import_``.
        command: click.Command = getattr(module, cmd_name, None) or getattr(module, cmd_name + "_")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest command suggested."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UserError(f"there is no command {args[0]!r};{nearest(args[0], list(COMMANDS))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUMMARIES[name]) for name in COMMANDS])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-C", "folder", type=click.Path(path_type=Path), help="Work as if started in DIR.", metavar="DIR")
@click.version_option(package_name="treadle", prog_name="treadle")
def treadle(folder: Path | None) -> None:
    """The whole life of a language model from one file, treadle.yaml; every answer is traced to its documents.

    \b
    Example:
      treadle init docs --template docs-assistant
      treadle -C docs run
      treadle -C docs ask "What does json.dumps do?"

    Exit codes: 0 done, 1 a gate or check said no, 2 your mistake, 3 ours, 130 interrupted.
    """
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise UserError(f"-C {folder}: {error.strerror}; name an existing folder") from None


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every error is one clear line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with _Interrupt() as interrupt:
        return _run(arguments, interrupt)


class _Interrupt:
    """Remembers that Ctrl-C came: a library that is just being imported may swallow it, and break by it later."""

    seen = False

    def __enter__(self) -> _Interrupt:
        self._before = signal.getsignal(signal.SIGINT)
        self._ours = (
            self._before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
        )
        if self._ours:
            signal.signal(signal.SIGINT, self._told)
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, self._before)

    def _told(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        signal.default_int_handler(number, frame)


def _run(arguments: list[str], interrupt: _Interrupt) -> int:
    try:
        result: Any = treadle.main(args=arguments, prog_name="treadle", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _fail(error.format_message().replace("\n", " "), 2, arguments)
    except (click.Abort, KeyboardInterrupt):
        return _interrupted(arguments)
    except TreadleError as error:
        return _fail(str(error), error.exit_code, arguments, error.told)
    except ModuleNotFoundError as error:
        return _interrupted(arguments) if interrupt.seen else _fail(_absent(error), 2, arguments)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno not in _NO_ROOM or os.environ.get("TREADLE_DEBUG"):
            return _defect(error, arguments)
        place = f" {error.filename}" if error.filename else ""
        return _fail(f"cannot write{place}: {error.strerror}; make room or make it writable, then again", 2, arguments)
    except Exception as error:  # the last resort: one line, and where to find the rest
        return _interrupted(arguments) if interrupt.seen else _defect(error, arguments)
    return result if isinstance(result, int) else 0


def _interrupted(arguments: list[str]) -> int:
    return _fail("interrupted; nothing is half-written, run the same command to go on", 130, arguments)


def _defect(error: Exception, arguments: list[str]) -> int:
    if os.environ.get("TREADLE_DEBUG"):
        raise error
    if own := _own_line(error):
        said = f"{type(error).__name__}: {error} ({own}, code of this project; TREADLE_DEBUG=1 shows all of it)"
        return _fail(said, 2, arguments)
    return _fail(f"{type(error).__name__}: {error} (a defect of Treadle; TREADLE_DEBUG=1 shows where)", 3, arguments)


def _own_line(error: Exception) -> str:
    """Where it came from, if that is code of the project that is open: not of Treadle, nor of what is installed."""
    try:
        project, found = Path.cwd().resolve(), ""
        apart = [Path(__file__).resolve().parents[1], *(Path(each).resolve() for each in (sys.prefix, sys.base_prefix))]
        for frame in traceback.extract_tb(error.__traceback__):
            path = Path(frame.filename).resolve()
            installed = any(path.is_relative_to(each) for each in apart) or _INSTALLED & {*path.parts}
            if path.is_relative_to(project) and not installed:
                found = f"{path.relative_to(project)}:{frame.lineno}"
    except OSError:  # the folder is gone, say
        return ""
    return found


def _absent(error: ModuleNotFoundError) -> str:
    """The command that installs what is missing."""
    from treadle.doctor import extra_of

    extra = extra_of(error.name or "")
    return f"{error.name} is not installed; run: pip install " + (f"'treadle[{extra}]'" if extra else str(error.name))


def _fail(message: str, code: int, arguments: list[str], told: dict[str, object] | None = None) -> int:
    line = " ".join(message.split())
    if "--json" in arguments:
        click.echo(json.dumps({**(told or {}), "error": {"message": line, "exit_code": code}}))
    click.echo(f"treadle: {line}", err=True)
    return code
