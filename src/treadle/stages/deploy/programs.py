"""A release evaluated by another tool, which asks it as any client would. Nothing it asks is recorded as traffic."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.program import GROUP, Address, Program, as_evaluated
from treadle.evals.report import EvaluationReport, commit
from treadle.record.feedback import Feedback
from treadle.record.interaction import Interaction
from treadle.record.release import Release

_SECONDS = 24 * 3600.0


@step(name="deploy.evaluate_through", version=1, tolerance=0.2)
def evaluate_through(
    release: Release, *, program: str, program_version: str, environment: str, task: str, task_digest: str, run: Run
) -> EvaluationReport:
    """What a tool in an environment of its own makes of the release's answers, kept item by item."""
    from treadle.evals.results import Evaluation

    tool: Program = load(GROUP, program).value()
    out = run.scratch / "results"
    out.mkdir()
    with _answering(release) as address:
        _ran(tool, Path(environment), address, task, out, run)
    items, outputs, metrics = as_evaluated(tool.read(out))
    about = {"program": {"name": program, "version": program_version, "task": task}}
    return commit(run, Evaluation(program, tuple(items), tuple(outputs)), metrics, (), about)


def find_program(name: str, environment: Path) -> tuple[Program, str]:
    """The tool and its version in an environment; ``UserError`` where it is not there."""
    tool: Program = load(GROUP, name).value()
    python = environment / "bin" / "python"
    if not (environment / "bin" / tool.executable).is_file() or not python.is_file():
        raise UserError(
            f"evaluate --through {name}: there is no {environment / 'bin' / tool.executable}; make one with"
            f" `python -m venv {environment}` and `{environment}/bin/pip install {tool.package}`"
        )
    ask = f"from importlib.metadata import version; print(version({tool.package!r}))"
    done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise UserError(f"evaluate --through {name}: {python} does not know {tool.package}")
    return tool, done.stdout.strip()


def _ran(tool: Program, environment: Path, address: Address, task: str, out: Path, run: Run) -> None:
    log = run.scratch / "program.log"
    given = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TREADLE_"))}
    with log.open("wb") as said:
        done = subprocess.run(
            [str(environment / "bin" / tool.executable), *tool.arguments(address, task, out)],
            cwd=run.folder,
            env={**given, **tool.environment(address)},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        )
    if done.returncode:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        why = (lines or ["it said nothing"])[-1].replace(address.key, "***")[:300]
        raise UserError(f"{tool.executable} ended with code {done.returncode}: {why}")


@contextmanager
def _answering(release: Release) -> Iterator[Address]:
    """The release behind an address of this machine, with a key that nobody else has."""
    from treadle.lm.engines import open_engine
    from treadle.lm.tokenizer import ChatTokenizer
    from treadle.serve.gateway import Gateway, GatewaySettings
    from treadle.serve.release import ServedRelease, Serving
    from treadle.serve.server import serving

    spec, folder, key = release.read(), release.path() / "model", secrets.token_hex(16)
    if spec.task != "chat":
        raise UserError("evaluate --through asks in words; this release is a classifier")
    served = ServedRelease(
        spec.name,
        release.digest,
        system_prompt=spec.system_prompt,
        max_tokens=int(spec.settings.get("max_tokens", 256)),
    )

    async def open_gateway() -> Gateway:
        engine = await open_engine(spec.engine, folder)
        answers = Serving(served, engine, ChatTokenizer.load(folder, opening=served.system_prompt))
        return Gateway(answers, _Nobody(), settings=GatewaySettings(record="none", api_key=key))

    with serving(open_gateway) as url:
        yield Address(f"{url}/v1", spec.name, key)


class _Nobody:
    """Keeps nothing: what a test asks is no traffic."""

    def interaction(self, row: Interaction) -> None:
        """Forgotten."""

    def feedback(self, row: Feedback) -> None:
        """Forgotten."""

    def find_interaction(self, interaction: str) -> Interaction | None:
        """Never."""
        return None

    def feedback_on(self, interaction: str) -> list[Feedback]:
        """None."""
        return []

    def keyed(self, person: str) -> str:
        """Of nobody."""
        return ""

    def keyed_text(self, text: str) -> str:
        """Of nothing."""
        return ""
