"""Targets that are a folder to be given away: published, run or built by others, and never deployed from here."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NoReturn

from treadle.core.artifacts import DOCUMENT_IDS
from treadle.core.errors import UserError
from treadle.lm.adapter import FOLDER as ADAPTER
from treadle.lm.model import ABOUT
from treadle.lm.optimizations import BESIDE
from treadle.lm.own_model import named_class
from treadle.lm.safetensors_folder import check_folder
from treadle.stages.deploy.targets import Rendering, Written

_OURS = (ABOUT, "treadle-source.json", DOCUMENT_IDS)  # what a model's folder has for its own project
_INDEX = ".safetensors.index.json"


class Package:
    """Base of such targets. ``then`` is what a person does in the folder."""

    name: ClassVar[str]
    then: ClassVar[str]
    tool = ""

    def apply(self, written: Written) -> NoReturn:
        """Refused: there is nothing here to put it to work on."""
        raise UserError(f"apply {self.name}: nothing of it is deployed from here; in its folder, {self.then}")

    def down(self, written: Written) -> NoReturn:
        """Refused: nothing was put to work."""
        raise UserError(f"apply {self.name}: nothing of it was deployed from here, so there is nothing to take away")


def trained_folder(release: Rendering, target: str) -> Path:
    """The release's model as it was trained; ``UserError`` where it is not there, or only code of somebody's own can
    open it."""
    if release.trained is None:
        raise UserError(
            f"render {target}: model {release.spec.model[:11]} is not in this project's store; treadle pull fetches it"
        )
    folder = release.trained.path()
    check_folder(folder)
    own = named_class(folder)
    if own is not None:
        raise UserError(
            f"render {target}: the model is of a class of your own ({own}), whose code a folder does not carry; take"
            " target docker or systemd"
        )
    return folder


def beside_weights(folder: Path) -> dict[str, Path]:
    """Config and tokenizer of a model, by path, and nothing that is its project's own business."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: path
        for name, path in paths.items()
        if path.suffix in BESIDE
        and path.name not in _OURS
        and not name.endswith(_INDEX)
        and not name.startswith(f"{ADAPTER}/")
    }


def weights(folder: Path) -> dict[str, Path]:
    """The weights, with their index where they lie in several files."""
    found = [*folder.glob("*.safetensors"), *folder.glob(f"*{_INDEX}")]
    return {path.name: path for path in sorted(found)}
