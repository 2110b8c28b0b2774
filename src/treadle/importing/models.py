"""A model from outside becomes a version of this project: served, traced and improved without training it again.

The next turn judges it: ``treadle run`` evaluates it on the tests, makes a release of it and promotes it where the
gates hold. Later turns start from it as from any champion. What it was trained on is not recorded, and says so.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.core.artifacts import Artifact
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.evals.task import load_task
from treadle.importing.import_run import import_run
from treadle.lm.base_model import BaseModel, resolve
from treadle.lm.model import ABOUT, FORMAT, Model
from treadle.lm.model_folder import read_config
from treadle.project import Project
from treadle.record.turn import TurnInputs
from treadle.record.version import NOT_RECORDED, Version

_KEPT = (".safetensors", ".json", ".jinja", ".txt", ".model")  # nothing that runs code when it is read


@dataclass(frozen=True)
class ImportedModel:
    """The version, the run that brought it, and the turn that will judge it (None where it stands already)."""

    version: Version
    run: str
    license: str
    turn: int | None
    before: bool

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "version": self.version.ref,
            "digest": self.version.digest,
            "run": self.run,
            "license": self.license,
            "turn": self.turn,
            "before": self.before,
        }


def import_model(project: Project, place: str, *, license: str | None = None, note: str | None = None) -> ImportedModel:  # noqa: A002
    """Take in a model folder or a GGUF file. The caller holds the project's lock.

    ``UserError`` for pickled or cut weights, for a model of another task, for one whose tokenizer is not that of
    ``develop.base_model`` (later turns could not start from it), and while a turn goes on.
    """
    path = Path(place).expanduser()
    if not path.is_dir() and not (path.suffix == ".gguf" and path.is_file()):
        raise UserError(f"import model: no folder and no .gguf file {place}; give a model folder or a GGUF file")
    source = resolve(str(path))
    _check(project, source)
    record, digest_of_source = project.record, source.digest
    known = license or (NOT_RECORDED if source.license == "unknown" else source.license)
    _check_no_turn(project)
    done = import_run(
        project,
        "import.model",
        lambda run: {"model": _copy(run, source, project.file.task, path.resolve().name, known)},
        note=note,
        source=digest_of_source,
        license=known,
        task=project.file.task,
    )
    version = record.versions.register("model", done.outputs["model"], done.run)
    return ImportedModel(version, done.run, known, _turn(project, version), done.before)


def _check_no_turn(project: Project) -> None:
    going = project.record.turns.open()
    if going is not None and not going.inputs.model:
        raise UserError(f"import model: turn {going.number} is going on; treadle run goes on with it, then import")


def _turn(project: Project, version: Version) -> int | None:
    """The turn that judges it, begun unless it stands already."""
    record = project.record
    if record.versions.alias("model", "champion") == version:
        return None
    going, latest = record.turns.open(), record.turns.latest()
    if going is not None and going.inputs.model == version.digest:
        return going.number
    if going is not None:
        record.turns.change(going.number, TurnInputs(going.inputs.feedback, None, going.inputs.split, version.digest))
        return going.number
    taken = latest.inputs if latest else TurnInputs()
    inputs = TurnInputs(taken.feedback, None, taken.split, version.digest)
    return record.turns.begin((f"imported {version.short}",), inputs, latest.until if latest else "").number


def _copy(run: Run, source: BaseModel, task: str, name: str, license: str) -> Artifact:  # noqa: A002
    with run.create(Model) as model:
        for path in sorted(source.path.iterdir()):
            if path.suffix in _KEPT and path.is_file() and path.name not in (ABOUT, "treadle-source.json"):
                shutil.copyfile(path, model.path / path.name)
        about = {
            "format": FORMAT,
            "task": task,
            "base_model": {
                "name": NOT_RECORDED,
                "digest": NOT_RECORDED,
                "license": license,
                "origin": f"{NOT_RECORDED}; a model imported from {name}",
            },
            "training": {"method": NOT_RECORDED, "data": NOT_RECORDED},
            "imported": {"name": name, "source": source.digest},
        }
        (model.path / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True))
        return model.commit()


def _check(project: Project, source: BaseModel) -> None:
    """``UserError`` unless the project can serve it, and train on from it."""
    task, path = load_task(project.file.task, project.folder), source.path
    config = read_config(path)
    named = [str(name) for name in config.get("architectures") or ()]
    if named and not any(name.endswith(task.heads) for name in named):
        raise UserError(
            f"import model: {path} is a {named[0]}; task {task.name} needs one that ends in {' or '.join(task.heads)}"
        )
    _check_shards(path)
    if task.fit is not None:
        if task.labeled and not config.get("id2label"):
            raise UserError(f"import model: {path}/config.json names no labels; expected id2label")
        return
    from treadle.lm.tokenizer import ChatTokenizer

    if not ChatTokenizer.load(path).has_chat_template:
        raise UserError(f"import model: {path} has no chat template; put chat_template.jinja beside its config.json")
    if project.file.develop.base_model is None:
        return  # a turn that starts from it takes its tokenizer as well
    base = resolve(project.file.develop.base_model)
    if base.digest != source.digest and not _same_words(base, source):
        raise UserError(
            f"import model: its tokenizer is not that of develop.base_model ({base.name}), so no later turn could"
            f" start from it; set develop.base_model to the imported folder or file"
        )


def _check_shards(path: Path) -> None:
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        return
    listed = read_config(path, index.name).get("weight_map")
    names = {str(name) for name in listed.values()} if isinstance(listed, dict) else set()
    absent = sorted(name for name in names if Path(name).name != name or not (path / name).is_file())
    if absent or not names:
        raise UserError(f"import model: {index} names {absent[0] if absent else 'no files'}, not there; copy it again")


def _same_words(base: BaseModel, source: BaseModel) -> bool:
    """Whether the base's tokenizer means the same to the other; one may have padding that the other lacks."""
    from treadle.lm.tokenizer import ChatTokenizer

    ours, theirs = ChatTokenizer.load(base.path), ChatTokenizer.load(source.path)
    mine, other = ours.vocabulary(), theirs.vocabulary()
    subset = mine.items() <= other.items() or other.items() <= mine.items()
    return subset and max(mine.values(), default=0) < theirs.vocabulary_size
