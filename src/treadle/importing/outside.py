"""Imports by name: what another tool keeps, read by a plugin of the group ``treadle.imports``.

A plugin is ``function(project, place, **settings) -> Brought``; its docstring is its help, and its settings are its
keyword parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.core.settings import bind
from treadle.project import Project

GROUP = "treadle.imports"


@dataclass(frozen=True)
class Brought:
    """What a plugin brought in: the import's run, what it says in JSON, and lines for a person."""

    run: str
    told: dict[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {"run": self.run, **self.told}


def bring(project: Project, name: str, place: str, settings: Sequence[str] = ()) -> Brought:
    """Import ``place`` by the plugin ``name``. ``settings`` are ``key=value``, values as in the file. The caller holds
    the project's lock."""
    plugin = load(GROUP, name, project.folder)
    given = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"import {name}: --with {setting}: expected key=value")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            given[key] = value  # such as *.jsonl, which is no YAML
    found: Brought = bind(plugin.value, given, where=f"import {name}", provided={"project": project, "place": place})
    return found
