"""A project: the folder with ``treadle.yaml``, the settings in it, and the record behind it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from treadle.core import ledger_url
from treadle.core.cipher import Cipher, open_cipher, read_key
from treadle.core.config import Settings, load_with_places
from treadle.core.errors import UserError, nearest
from treadle.core.head_target import FORMS, head_target
from treadle.core.plugins import names
from treadle.core.publisher import Publisher
from treadle.core.remote import check_address, is_bucket
from treadle.core.secrets import resolve
from treadle.core.workspace import Workspace
from treadle.evals.task import GROUP, load_task
from treadle.lm.initial_model import parameters_of, shape_for
from treadle.lm.initial_tokenizer import vocabulary_for
from treadle.lm.own_model import PROJECT
from treadle.record.beside import Beside
from treadle.record.record import PROJECTIONS, Record
from treadle.stages.collect import CollectSettings
from treadle.stages.deploy import DeploySettings
from treadle.stages.develop import DevelopSettings
from treadle.stages.govern import GovernSettings
from treadle.stages.improve import ImproveSettings
from treadle.stages.monitor import MonitorSettings
from treadle.stages.prepare import PrepareSettings
from treadle.text.source import instead_of_secret

FILE = "treadle.yaml"
STORE = ".treadle"  # where the store lies, or what is kept here of one in a bucket


class File(Settings):
    """``treadle.yaml``: one model, from where its text comes to what starts its next version."""

    name: str = Field(description="names the model and its dataset: model/NAME@v1")
    task: str = Field(description=f"what the model is for: {', '.join(names(GROUP))}, or module:object of your own")
    seed: int = Field(17, ge=0, lt=2**63, description="everything random starts from it")
    store: str = Field(
        ".treadle",
        description="the folder that holds artifacts, keys and journal; or a bucket for the artifacts, s3://...",
    )
    encryption: str | None = Field(
        None, description="the key under which artifacts lie encrypted: ${env:NAME}, or a file that holds it"
    )
    ledger: str | None = Field(
        None, description="the database: a file (treadle.db in the store by default), or postgresql://host/db"
    )
    publish_heads: tuple[str, ...] = Field((), description=f"where signed heads of the ledger are kept too: {FORMS}")
    remotes: dict[str, str] = Field({}, description="names for the places of treadle push and pull")
    collect: CollectSettings
    prepare: PrepareSettings = PrepareSettings()
    develop: DevelopSettings
    deploy: DeploySettings = DeploySettings()
    monitor: MonitorSettings = MonitorSettings()
    govern: GovernSettings = GovernSettings()
    improve: ImproveSettings = ImproveSettings()

    @classmethod
    def instead_of_secret(cls, beside: Mapping[str, Any], key: str) -> str:
        """Not every source reads the environment in place of a setting; each says what it takes."""
        return instead_of_secret(beside, key) or super().instead_of_secret(beside, key)

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
            raise ValueError("expected letters, digits, '.', '_' and '-', at most 64, such as docs-assistant")
        return value

    @field_validator("task")
    @classmethod
    def _known_task(cls, value: str) -> str:
        if ":" not in value and value not in names(GROUP):
            raise ValueError(f"there is no task {value!r};{nearest(value, names(GROUP))}")
        return value

    @model_validator(mode="after")
    def _family(self) -> File:
        init = self.develop.init
        task = load_task(self.task) if ":" not in self.task else None  # one's own is looked at when it is used
        if task is not None:
            for name in self.develop.evaluate.baselines or ():
                if name not in task.baselines:
                    known = ", ".join(task.baselines) or "none"
                    raise ValueError(
                        f"develop.evaluate.baselines: {name!r} is not of task {self.task}; expected {known}"
                    )
        if self.develop.prefer is not None and task is not None and "preference" not in task.gives:
            raise ValueError(f"develop.prefer: pairs of answers are not for task {self.task}; leave it out")
        if self.develop.distill is not None and task is not None and task.distill is None:
            raise ValueError(f"develop.distill: not for task {self.task}; leave it out")
        if init is not None and task is not None and init.architecture not in task.architectures:
            expected = " or ".join(task.architectures) or "base_model"
            raise ValueError(
                f"develop.init.architecture: {init.architecture} is not for task {self.task}; expected {expected}"
            )
        if init is not None and init.architecture == "gpt2" and self.deploy.quantize is not None:
            raise ValueError("deploy.quantize: gpt2 cannot be written as a GGUF; set it to null, or take llama")
        own = self.prepare.tokenizer
        if init is not None and own is not None and (init.vocabulary or init.tokenizer):
            named = "vocabulary" if init.vocabulary else "tokenizer"
            raise ValueError(f"develop.init.{named}: prepare.tokenizer says which tokenizer it has; leave out either")
        if init is not None and init.tokenizer is None and init.model is None:
            vocabulary = own.vocabulary if own else init.vocabulary or vocabulary_for(init.size)
            try:
                shape_for(init.architecture, parameters_of(init.size), vocabulary, init.context)
            except UserError as error:
                raise ValueError(f"develop.init: {error}") from None
        return self

    @model_validator(mode="after")
    def _adapter(self) -> File:
        """Kept apart is what there is to keep."""
        task = load_task(self.task) if ":" not in self.task else None
        if self.deploy.adapter == "separate":
            if self.develop.method != "lora" or (task is not None and task.fit is not None):
                raise ValueError("deploy.adapter: separate is for chat with develop.method: lora; leave out either")
            if self.develop.distill is not None:
                raise ValueError("deploy.adapter: separate, and develop.distill leaves no adapter; leave out either")
        return self

    @field_validator("publish_heads")
    @classmethod
    def _places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            try:
                head_target(name, Path())
            except UserError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("store")
    @classmethod
    def _store(cls, value: str) -> str:
        if is_bucket(value):
            try:
                check_address(value)
            except UserError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("encryption")
    @classmethod
    def _no_key(cls, value: str | None) -> str | None:
        if value is not None and read_key(value) is not None:
            raise ValueError("holds a key itself; write ${env:NAME}, or the name of a file with the key")
        return value

    @field_validator("ledger")
    @classmethod
    def _ledger(cls, value: str | None) -> str | None:
        return ledger_url.check(value) if value and ledger_url.is_url(value) else value


@dataclass(frozen=True)
class Project:
    """Everything a command needs: folder, settings, record, and who publishes the ledger's heads."""

    folder: Path
    file: File
    record: Record
    publisher: Publisher


def find_folder(start: Path) -> Path:
    """The folder of the project that ``start`` is in, looking upwards as git does."""
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder
    raise UserError(f"there is no {FILE} in {start} or above it; make a project with: treadle init DIR")


@contextmanager
def open_project(start: Path, overrides: tuple[str, ...] = ()) -> Iterator[Project]:
    """The project around ``start``, open until the block ends."""
    folder = find_folder(start.resolve())
    os.environ[PROJECT] = str(folder)
    file, places = load_with_places(folder / FILE, File, overrides)
    with places.pointing(), open_folder(folder, file) as project:
        yield project


@contextmanager
def open_folder(folder: Path, file: File) -> Iterator[Project]:
    """The project in a folder whose settings were read, open until the block ends; code of its own is not for the
    processes that are started meanwhile."""
    bucket = file.store if is_bucket(file.store) else None
    root, cipher = store_folder(folder, file), cipher_of(folder, file)
    with Workspace(root, ledger_of(folder, file), PROJECTIONS, cipher, bucket=bucket) as workspace:
        targets = [head_target(name, folder) for name in file.publish_heads]
        publisher = Publisher(workspace.ledger, workspace.keys, targets)
        workspace.released.append(publisher.run)
        workspace.closing.callback(publisher.run)
        record = Record(workspace, file.name)
        workspace.closing.callback(Beside(record, folder).close)
        yield Project(folder, file, record, publisher)


def store_folder(folder: Path, file: File) -> Path:
    """Where the store lies, or what is kept here of one in a bucket."""
    return folder / (STORE if is_bucket(file.store) else file.store)


def cipher_of(folder: Path, file: File) -> Cipher | None:
    """What the settings encrypt the store with."""
    return open_cipher(file.encryption, folder) if file.encryption is not None else None


def ledger_of(folder: Path, file: File) -> Path | str | None:
    """The file or URL that the settings name for the ledger; None for the file in the store."""
    named = resolve(file.ledger) if file.ledger else None
    return named if named is None or ledger_url.is_url(named) else folder / named
