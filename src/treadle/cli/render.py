"""``treadle render`` and ``treadle apply``."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import yaml

from treadle.asking import find_release
from treadle.cli.output import emit, here, json_option, say, short
from treadle.core.driver import Driver
from treadle.core.errors import Corrupt, Refused, UserError
from treadle.core.remote import is_bucket
from treadle.core.runs import Run
from treadle.exporting import export_folder
from treadle.lm.model import Model
from treadle.project import Project, open_project
from treadle.record.release import Release
from treadle.stages.deploy.carried import read_carried
from treadle.stages.deploy.targets import (
    REMOTE,
    Plan,
    Rendering,
    Written,
    carry_out,
    conclude,
    find_target,
    shown,
    smoke,
)
from treadle.stages.deploy.targets import render as render_files
from treadle.stages.govern.card import card_of

_WITH = click.option("--with", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the target.")


@click.command()
@click.argument("target")
@click.argument("ref", default="@champion")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write to.")
@_WITH
@json_option
def render(target: str, ref: str, out: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Write what a TARGET takes of the release REF (@champion by default), as plain files to read and commit.

    Targets: docker, huggingface, kserve, kubernetes, onnx, rayserve, sagemaker, systemd, tensorflow-serving,
    tensorrt, triton, vertex; others come in by the entry-point group treadle.targets. The same release gives the same
    bytes. Nothing is overwritten that was edited. `treadle apply` puts the files to work; huggingface, onnx,
    tensorflow-serving and tensorrt are folders to give away.

    \b
    Example:
      treadle render docker @champion --out deploy/docker
      treadle render docker --out deploy/docker --with model=pulled --with remote=s3://bucket/team
      treadle render kubernetes --out deploy/kubernetes --with image=registry.example/helper:1
      treadle render kubernetes --out deploy/kubernetes --with gateway=web --with canary=@challenger --with share=0.1
      treadle render huggingface --out deploy/hub --with license=apache-2.0
    """
    out = here() / out
    with open_project(here()) as project:
        given = _named(project, _parsed(target, settings))
        found = find_target(target, given, project.folder)  # a wrong setting is said before anything is looked for
        release = _rendering(project, find_release(project, ref))
        written, changed = render_files(
            target, release, out, given, project.folder, lambda other: _rendering(project, find_release(project, other))
        )
        then = getattr(found, "then", None)
        if not then and not given.get("keys"):
            _tell_of_keys(project)
    if as_json:
        emit({"target": target, **_told(written), "path": str(out), "files": sorted(written.files),
              "changed": changed})  # fmt: skip
        return
    for path in changed:
        say(f"wrote {out / path}")
    next_ = f"in {out}, {then}" if then else f"treadle apply {target} {out} puts it to work"
    tried = written.canary
    beside = f", with {tried.model} ({short(tried.release)}) for {tried.share:.4g} of the requests" if tried else ""
    say(f"{written.model} ({short(written.release)}) for {target}{beside}; {next_}")


@click.command()
@click.argument("target")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say which commands it would run, and run none.")
@click.option("--down", is_flag=True, help="Take away what was deployed; recorded interactions stay.")
@json_option
def apply(target: str, folder: Path, dry_run: bool, down: bool, as_json: bool) -> None:
    """Put the files in FOLDER, which treadle render wrote, to work with the TARGET's own tool, and ask what runs there.

    What answers has to name the release that was rendered. Done and recorded each time it is called; clients' key is
    TREADLE_API_KEY.

    \b
    Example:
      treadle apply docker deploy/docker --dry-run
      treadle apply docker deploy/docker
      treadle apply docker deploy/docker --down
    """
    folder = here() / folder
    with open_project(here()) as project:
        written = Written.read(folder)
        if written is None or written.target != target:
            raise UserError(f"apply {target}: {folder} holds nothing that treadle render {target} wrote")
        found = find_target(target, written.settings, project.folder)
        plan = found.down(written) if down else found.apply(written)
        told: dict[str, Any] = {"target": target, **_told(written), "endpoint": plan.endpoint}
        told |= {"commands": shown(plan), "done": not dry_run}
        if not down and not written.settings.get("keys"):
            _tell_of_keys(project)
        answers = [] if dry_run else _act(project, written, folder, plan, down=down)
        if answers:
            told["answer"] = answers[0]
        if written.canary is not None and answers:
            told["canary"]["answer"] = answers[1]
    if as_json:
        emit(told)
        return
    for command in told["commands"]:
        say(command)
    for each, answer in zip(written.answering(), answers, strict=False):
        say(f"{plan.endpoint} answers with {each.model} ({short(each.release)}): {answer}")


def _tell_of_keys(project: Project) -> None:
    """What is deployed as files knows none of the project's keys."""
    made, revoked = project.record.api_keys.stamp()
    if made > revoked:
        click.echo(
            f"the API keys of this project ({made - revoked}), with their budgets and rates, are not known there, and"
            " each copy stands alone; where limits have to hold over all, keep the ledger in PostgreSQL and serve with"
            " TREADLE_KEYS_DATABASE, as --with keys=postgresql does",
            err=True,
        )


def _told(written: Written) -> dict[str, Any]:
    """Which release, and which beside it."""
    return {"release": written.release, **({"canary": asdict(written.canary)} if written.canary else {})}


def _act(project: Project, written: Written, folder: Path, plan: Plan, *, down: bool) -> list[str]:
    """Do it, as an action in the record, and say where the release answers from now on. Gives its answer, and that of
    a canary."""
    releases = [Release(each.release, project.record.store) for each in written.answering()]
    answers: list[str] = []

    def work(run: Run) -> dict[str, Any]:
        if plan.release and not down:
            _bring(project, releases[0], folder / plan.release)
        carry_out(plan, folder.resolve())
        if plan.endpoint is not None and not down:
            answers.extend(smoke(plan, each) for each in written.answering())
        conclude(plan, folder.resolve())
        return {}

    runs = project.record.runs
    before = sum(1 for _ in runs.find(step="deploy.apply"))
    driver = Driver(runs, project.folder, seed=project.file.seed)
    driver.stage("deploy")
    driver.act("deploy.apply", work, inputs=releases, target=written.target, down=down, time=before)
    if plan.endpoint is not None:
        _note(project, written, plan.endpoint, down=down)
    return answers


def _note(project: Project, written: Written, endpoint: str, *, down: bool) -> None:
    """Who answers there from now on; nobody else does where two share the requests."""
    deployments, shares = project.record.deployments, written.shares()
    for release, model, share in shares:
        deployments.record(release, model, endpoint, 0.0 if down else share)
    ours = {release for release, _, _ in shares}
    for each in deployments.all():
        if written.canary is not None and each.endpoint == endpoint and each.release not in ours:
            deployments.record(each.release, each.model, endpoint, 0.0)


def _bring(project: Project, release: Release, place: Path) -> None:
    """The release's files into the folder, unless they are there."""
    if place.exists():
        with suppress(UserError, Refused, Corrupt):  # not a release any more, where a file was lost
            if read_carried(place).digest == release.digest:
                return
        shutil.rmtree(place)
    if not project.record.store.has(release.digest):
        raise UserError(f"apply: release {release.digest} is not in this project's store; treadle pull fetches it")
    export_folder(release, release.digest, place)


def _rendering(project: Project, release: Release) -> Rendering:
    """What targets are told of a release."""
    from treadle.lm.engines import AUTO, find_engine

    record, spec = project.record, release.read()
    version = next(iter(record.versions.with_digest(spec.model)), None)
    engine = spec.engine
    if engine == AUTO:
        engine = find_engine(AUTO, release.path("release.json").parent / "model").name
    tried = record.runs.find(step="deploy.smoke", status="done")
    memory = next((run.metrics.get("memory_bytes") for run in tried if release.digest in run.inputs.values()), None)
    name = f"{spec.name}@v{version.number}" if version else spec.name
    return Rendering(
        release.digest,
        name,
        spec,
        engine,
        release.size,
        int(memory) if memory else None,
        Model(spec.model, record.store) if record.store.has(spec.model) else None,
        card_of(record, release),
    )


def _named(project: Project, given: dict[str, Any]) -> dict[str, Any]:
    """The settings, with a remote as what its name stands for here."""
    name = given.get(REMOTE)
    if not isinstance(name, str) or not name:
        return given
    place = project.file.remotes.get(name, name)
    return {**given, REMOTE: place if is_bucket(place) else str((project.folder / place).resolve())}


def _parsed(target: str, settings: tuple[str, ...]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"render {target}: --with {setting}: expected KEY=VALUE")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            given[key] = value
    return given
