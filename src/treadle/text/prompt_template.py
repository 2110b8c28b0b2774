"""Prompts that ask a teacher for examples, as data: YAML with a name, a version, and ``{places}`` to fill.

Those that ship lie in ``prompts/``; a project brings its own as a file of the same form. A place is filled once, so
what a document says is never taken for a place.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from treadle.core.config import Settings, load
from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import UserError

_SHIPPED = Path(__file__).with_name("prompts")
_PLACE = re.compile(r"\{([a-z_]+)\}")
_LONGEST = 20_000  # characters


class Shown(Settings):
    """One prompt with a good reply, so that a teacher sees the form."""

    values: dict[str, str] = Field(description="what fills the places of the prompt")
    reply: str = Field(min_length=1, max_length=_LONGEST, description="what a good teacher would say")


class PromptTemplate(Settings):
    """What a teacher is told: ``system`` first where it is not empty, the prompts ``shown`` with their replies, then
    ``prompt`` with its places filled."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,59}$", description="what lineage calls it")
    version: int = Field(ge=1, description="raised when its words change")
    system: str = Field("", max_length=_LONGEST, description="what the teacher is told first")
    shown: list[Shown] = Field(default_factory=list, max_length=20, description="prompts answered before, as examples")
    prompt: str = Field(max_length=_LONGEST, description="what it is asked, with places such as {document}")

    @property
    def digest(self) -> str:
        """Of all it says: two templates of one digest ask the same."""
        return blake3_bytes(canonical_json(self.model_dump()))

    def messages(self, values: Mapping[str, str]) -> tuple[dict[str, Any], ...]:
        """The conversation to be answered."""
        turns = [_turn("system", self.system)] if self.system.strip() else []
        for each in self.shown:
            turns += [_turn("user", self._filled(each.values)), _turn("assistant", each.reply)]
        return (*turns, _turn("user", self._filled(values)))

    def _filled(self, values: Mapping[str, str]) -> str:
        return _PLACE.sub(lambda place: values.get(place[1], place[0]), self.prompt)


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content.strip()}


def shipped_template(name: str) -> PromptTemplate:
    """The one that ships under a name."""
    return load(_SHIPPED / f"{name}.yaml", PromptTemplate)


def read_template(path: Path, needs: Collection[str], may: Collection[str], where: str) -> PromptTemplate:
    """One's own template; ``UserError`` when it lacks a place that it needs, or has one that nothing fills."""
    if not path.is_file():
        raise UserError(f"{where}: there is no file {path}; expected a template with name, version and prompt")
    template = load(path, PromptTemplate)
    places = set(_PLACE.findall(template.prompt))
    missing, unknown = sorted(set(needs) - places), sorted(places - set(needs) - set(may))
    if missing:
        raise UserError(f"{where}: {path.name} has no {{{missing[0]}}} in its prompt, so nothing would be asked about")
    if unknown:
        known = ", ".join(f"{{{each}}}" for each in sorted({*needs, *may}))
        raise UserError(f"{where}: {path.name} has the place {{{unknown[0]}}}, which nothing fills; expected {known}")
    return template
