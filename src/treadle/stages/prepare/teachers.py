"""From the settings of a teacher to one that answers, and to what names it in a key and in lineage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.lm.endpoint import EndpointTeacher, Limits
from treadle.lm.endpoint_address import check_endpoint
from treadle.lm.teacher import EngineTeacher, Sampling, Teacher
from treadle.record.gate import judged
from treadle.record.release import Release
from treadle.record.version import Versions
from treadle.stages.prepare.settings import TeacherSettings

WHERE = "prepare.synthesize.teacher"
# How it is reached changes no answer, so it is in no prompt's id; it is in the step's key, as all that a step is told:
# where it changes, the teacher is asked anew for what was not kept.
HOW = ("api_key", "timeout", "retries", "at_once")


def describe(driver: Driver, settings: TeacherSettings) -> dict[str, Any]:
    """What a step is told of a teacher: the settings that matter, and the digest of a base model."""
    from treadle.lm.base_model import MissingModel, fingerprint

    told: dict[str, Any] = settings.model_dump(exclude_none=True)
    if settings.url is not None:
        check_endpoint(settings.url, settings.api_key, WHERE)
        return {key: value for key, value in told.items() if key != "engine"}
    for name in HOW:
        told.pop(name, None)
    if settings.model is not None:
        try:
            told["fingerprint"] = fingerprint(settings.model)
        except MissingModel:
            if not driver.planning:
                raise
    return told


def release_of(driver: Driver, versions: Versions, settings: TeacherSettings) -> Release | None:
    """The release of the version that teaches; None where another teaches. ``UserError`` where it has none."""
    if settings.version is None:
        return None
    version = versions.resolve(settings.version)
    if version is None or version.kind != "model":
        raise UserError(
            f"{WHERE}.version: {settings.version!r} is no version of a model; expected one such as model@v1"
        )
    row = judged(driver.runs.ledger, version.digest)
    if row is None or not driver.runs.store.has(row.release):
        raise UserError(f"{WHERE}.version: there is no release of {settings.version}; expected a version that has one")
    return Release(row.release, driver.runs.store)


@contextmanager
def open_teacher(told: dict[str, Any], release: Release | None, run: Run) -> Iterator[Teacher]:
    """The teacher that ``describe`` told of, ready to answer."""
    sampling = Sampling(told["max_tokens"], told["temperature"], told["top_p"])
    if "url" in told:
        limits = Limits(told["timeout"], told["retries"], told["at_once"])
        endpoint = EndpointTeacher(
            told["url"], told["model"], told.get("api_key"), sampling, limits, where="prepare.synthesize"
        )
        with endpoint:
            yield endpoint
        return
    from treadle.evals.report import evaluation_engine
    from treadle.lm.base_model import resolve
    from treadle.lm.engines import BlockingEngine
    from treadle.lm.model_folder import model_folder
    from treadle.lm.tokenizer import ChatTokenizer

    if release is not None:
        folder = model_folder(release.path())
        tokenizer, engine = ChatTokenizer.load(folder), BlockingEngine(told["engine"], release.path(), here=True)
        with engine as opened:
            yield EngineTeacher(opened, _able(tokenizer, told["version"]), sampling)
        return
    base = resolve(told["model"])
    if base.digest != told["fingerprint"]:
        raise UserError(f"{WHERE}: {told['model']} changed while it was read; run the same command again")
    tokenizer = _able(ChatTokenizer.load(base.path), told["model"])
    # In 16 bits an answer depends on which others were computed beside it, and that on how busy the machine is.
    with evaluation_engine(base.path, told["engine"], run.scratch, exact=True) as opened:
        yield EngineTeacher(opened, tokenizer, sampling)


def _able(tokenizer: Any, name: str) -> Any:
    if not tokenizer.has_chat_template:
        raise UserError(f"{WHERE}: {name} has no chat template, so it cannot be asked; expected a model that chats")
    return tokenizer
