"""Write the generated parts of the documentation: ``python scripts/reference.py [--check]``.

A page asks for a part with a pair of markers; what stands between them is replaced:

    <!-- generated: settings collect -->
    <!-- end -->

Parts are drawn from the code itself: settings from the pydantic models, commands from click, steps from their
signatures, parts by name from the entry points in pyproject.toml, the HTTP API from the server's own description.
With ``--check`` nothing is written; exit code 1 and the name of each page that is not up to date.
"""

from __future__ import annotations

import ast
import collections.abc
import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import sys
import tomllib
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from benchmark_tables import benchmark, targets, tasks

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("collect", "prepare", "develop", "track", "deploy", "monitor", "govern", "improve")
# What a part is given by its caller, so that it is no setting.
GIVEN = {"context", "documents", "evidence", "items", "outputs", "run", "seed"}
# What somebody needs who adds a part from outside; each is public and stays.
EXTENDING = {
    "A transform": ("treadle.text.document:Document", "treadle.text.accounting:Dropped", "treadle.text.accounting:Note",
                    "treadle.text.accounting:Touched", "treadle.text.transform:TransformContext",
                    "treadle.text.transform:declare"),
    "A source": ("treadle.text.source:Source", "treadle.text.source:SourceContext",
                 "treadle.text.accounting:Quarantined", "treadle.text.document:document_id"),
    "A maker of examples": ("treadle.text.dataset:Example",),
    "A metric": ("treadle.evals.item:Item", "treadle.evals.item:Output", "treadle.evals.metric:Metric"),
    "A gate": ("treadle.stages.govern:Evidence", "treadle.record.gate:GateResult"),
    "An engine": ("treadle.lm.engine:Engine", "treadle.lm.engine:GenerateRequest", "treadle.lm.engine:Chunk",
                  "treadle.lm.engine:Score", "treadle.lm.engine:ClassScores", "treadle.lm.engine:TaggedSpan",
                  "treadle.lm.engine:Extract", "treadle.lm.engine:EngineStats"),
    "An optimization": ("treadle.lm.optimization:Optimization", "treadle.lm.optimization:Material"),
    "An executor": ("treadle.core.executors:Executor",),
    "A remote": ("treadle.core.remote:Remote",),
    "A sink": ("treadle.core.sink:Sink", "treadle.core.sink:View", "treadle.core.sink:SentRun",
               "treadle.core.sink:SentArtifact", "treadle.core.sink:Ref"),
}  # fmt: skip

_MARKER = re.compile(r"(<!-- generated: ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_WIDTH = 90  # columns of a help page


# -- settings


def settings(stage: str) -> Iterator[str]:
    """A table of the settings of a stage, or of what stands at the top of the file."""
    from treadle.project import File

    schema = File.model_json_schema()
    rows = list(_rows(schema, schema, "", top=stage == "top"))
    if stage != "top":
        rows = [row for row in rows if row[0].startswith(f"{stage}.")]
    if not rows:
        yield "This stage has no settings."
        return
    yield "| setting | type | default | what it is |"
    yield "|---|---|---|---|"
    for name, kind, default, text in rows:
        yield f"| `{name}` | {kind} | {default} | {text} |"


def _rows(node: dict[str, Any], schema: dict[str, Any], prefix: str, *, top: bool) -> Iterator[tuple[str, ...]]:
    for name, field in node.get("properties", {}).items():
        inner = _section(field, schema)
        if inner is not None and top:
            continue
        shown = f"{prefix}{name}"
        if inner is None or _is_list(field):
            default = "required" if name in node.get("required", ()) else _default(field.get("default"))
            yield shown, _kind(field, schema), default, _cell(field.get("description", ""))
        if inner is not None:
            yield from _rows(inner, schema, shown + ("[]." if _is_list(field) else "."), top=top)


def _section(field: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any] | None:
    """The nested model of a setting, where it is one."""
    for each in (field, *field.get("anyOf", ()), field.get("items") or {}):
        if "$ref" in each:
            found: dict[str, Any] = schema["$defs"][each["$ref"].rpartition("/")[2]]
            return found
    return None


def _is_list(field: dict[str, Any]) -> bool:
    return field.get("type") == "array"


def _kind(field: dict[str, Any], schema: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_kind(each, schema) for each in field["anyOf"])
    if "$ref" in field:
        return "section"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(field.get('items', {}), schema)}"
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false",
             "null": "nothing", "object": "section"}  # fmt: skip
    bounds = [
        f"{sign} {field[key]:g}" if isinstance(field[key], float) else f"{sign} {field[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in field and abs(field[key]) < 2**53
    ]
    return " ".join([names.get(kind, kind), *bounds])


def _default(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return "`[" + ", ".join(str(item) for item in value) + "]`"
    return "`{}`" if value == {} else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`")


# -- steps and actions


def steps(stage: str) -> Iterator[str]:
    """A table of the steps and actions of a stage, in the order of its code."""
    from treadle.core.steps import Step, output_names

    modules = list(_modules(importlib.import_module(f"treadle.stages.{stage}")))
    places = {module.__name__: place for place, module in enumerate(modules)}
    named = {each.name: each for module in modules for each in vars(module).values() if isinstance(each, Step)}
    found = sorted(
        named.values(), key=lambda step: (places[step.function.__module__], step.function.__code__.co_firstlineno)
    )
    actions = [name for module in modules for name in _actions(module)]
    if not found and not actions:
        yield "This stage has no steps: it reads the record."
        return
    yield "| step | version | takes | settings | gives | what it does |"
    yield "|---|---|---|---|---|---|"
    for each in found:
        takes = ", ".join(each.signature.inputs)
        settings_ = ", ".join([*each.signature.settings, *(["*seed*"] if each.signature.wants_seed else [])])
        text = _cell(_summary(each.function))
        gives = ", ".join(output_names(each))
        yield f"| `{each.name}` | {each.version} | {takes} | {settings_} | {gives} | {text} |"
    for name in actions:
        yield f"| `{name}` | action | | | | done once for each request, never remembered as a result |"


def _modules(module: Any) -> Iterator[Any]:
    """A stage's module, and those within it."""
    yield module
    for each in pkgutil.iter_modules(getattr(module, "__path__", [])):
        yield importlib.import_module(f"{module.__name__}.{each.name}")


def _actions(module: Any) -> Iterator[str]:
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "act":
            first = node.args[0]
            if isinstance(first, ast.Constant):
                yield str(first.value)


# -- commands


def commands(*names: str) -> Iterator[str]:
    """The help pages of commands, or of all."""
    from treadle.cli.main import COMMANDS, treadle

    if not names:
        yield from _help("treadle", treadle)
    for name in names or COMMANDS:
        command = treadle.get_command(click.Context(treadle), name)
        if command is None:
            raise SystemExit(f"there is no command {name}")
        yield ""
        yield f"### `treadle {name}`"
        yield ""
        yield from _help(f"treadle {name}", command)
        for part in sorted(command.commands) if type(command) is click.Group else ():
            yield ""
            yield from _help(f"treadle {name} {part}", command.commands[part])


def _help(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=name, terminal_width=_WIDTH, max_content_width=_WIDTH)
    yield "```text"
    yield from (line.rstrip() for line in command.get_help(context).splitlines())
    yield "```"


# -- parts by name


def parts(group: str) -> Iterator[str]:
    """A table of what is installed under an entry-point group, from pyproject.toml."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    # An engine is opened on a folder, a remote by its address, a protocol by a command, a sink by the environment; the
    # file says nothing of them.
    configured = group not in ("engines", "optimizations", "remotes", "protocols", "sinks")
    yield "| name | settings | what it does |" if configured else "| name | what it does |"
    yield "|---|---|---|" if configured else "|---|---|"
    for name, place in pyproject["project"]["entry-points"][f"treadle.{group}"].items():
        module, _, attribute = place.partition(":")
        value = getattr(importlib.import_module(module), attribute)
        columns = [f"`{name}`", *([_part_settings(value)] if configured else []), _cell(_summary(value))]
        yield f"| {' | '.join(columns)} |"


def calls() -> Iterator[str]:
    """The calls of MLflow's API that are served."""
    from treadle.integrations.mlflow_tracking.calls import CALLS

    yield "| call | what it does |"
    yield "|---|---|"
    for call in CALLS:
        yield f"| `{call.method} {call.path}` | {_cell(_summary(call.answer))} |"


def _part_settings(value: Any) -> str:
    shown = []
    for parameter in inspect.signature(value).parameters.values():
        if parameter.name in GIVEN or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        given = parameter.default not in (parameter.empty, None, "", ())
        value_ = str(parameter.default).lower() if isinstance(parameter.default, bool) else parameter.default
        default = f": {value_}" if given else ""
        required = " (required)" if parameter.default is parameter.empty else ""
        shown.append(f"`{parameter.name}{default}`{required}")
    return ", ".join(shown)


def _summary(value: Any) -> str:
    """The first sentence or paragraph of a docstring."""
    return (inspect.getdoc(value) or "").split("\n\n", 1)[0]


# -- Python


def python() -> Iterator[str]:
    """What ``import treadle`` gives."""
    import treadle

    for name in treadle.__all__:
        yield from _entry(f"treadle.{name}", getattr(treadle, name))


def extending() -> Iterator[str]:
    """What parts from outside are written with."""
    for title, places in EXTENDING.items():
        yield f"### {title}"
        yield ""
        for place in places:
            module, _, attribute = place.partition(":")
            yield from _entry(f"{module}.{attribute}", getattr(importlib.import_module(module), attribute), deep=True)


def _entry(name: str, value: Any, *, deep: bool = False) -> Iterator[str]:
    yield f"#### `{name}`"
    yield ""
    yield "```python"
    yield f"{'class ' if inspect.isclass(value) else ''}{name.rpartition('.')[2]}{_signature(value)}"
    yield "```"
    yield ""
    yield from (inspect.getdoc(value) or "").replace("``", "`").splitlines()
    yield ""
    if inspect.isclass(value) and (deep or not issubclass(value, Exception)):
        methods = [(key, each) for key, each in vars(value).items() if not key.startswith("_") and _is_method(each)]
        for key, each in methods:
            function = each.__func__ if isinstance(each, classmethod | staticmethod) else each
            yield f"- `{key}{_signature(function)}`: {_cell(_summary(function))}"
        if methods:
            yield ""


def _is_method(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, classmethod | staticmethod)


def _signature(value: Any) -> str:
    """Parameters as they are written, without ``self`` and ``cls``."""
    if inspect.isclass(value) and (issubclass(value, Exception) or getattr(value, "_is_protocol", False)):
        return ""
    signature = inspect.signature(value)
    shown: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not any(each.startswith("*") for each in shown):
            shown.append("*")
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        star = "**" if parameter.kind is parameter.VAR_KEYWORD else star
        kind = "" if parameter.annotation is parameter.empty else f": {_annotation(parameter.annotation)}"
        default = "" if parameter.default is parameter.empty else f" = {_default_value(parameter.default)}"
        shown.append(f"{star}{parameter.name}{kind}{default}")
    returns = "" if inspect.isclass(value) else f" -> {_annotation(signature.return_annotation)}"
    return f"({', '.join(shown)}){returns}"


def _annotation(value: Any) -> str:
    return value if isinstance(value, str) else inspect.formatannotation(value)


def _default_value(value: Any) -> str:
    plain = value is None or isinstance(value, bool | int | float | str | tuple)
    return repr(value) if plain else "..."


# -- HTTP


def http() -> Iterator[str]:
    """Operations, request fields and answers, from the description that the server gives at /openapi.json."""
    from treadle.serve.openapi import document

    described = document(keyed=False)
    yield "| | | request | answer |"
    yield "|---|---|---|---|"
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            good = next(iter(operation["responses"].values()))["content"]
            answer = _name(good["application/json"]["schema"]) if "application/json" in good else "text"
            takes = " or ".join(map(_name, body.get("anyOf", [body])))
            yield f"| `{method.upper()} {path}` | {operation['summary']} | {takes} | {answer} |"
    schemas = described["components"]["schemas"]
    for name, schema in schemas.items():
        yield ""
        yield f"### {name}"
        yield ""
        if schema.get("description"):
            yield schema["description"].replace("``", "`")
            yield ""
        yield "| field | type |"
        yield "|---|---|"
        for field, kind in schema.get("properties", {}).items():
            mark = " (required)" if field in schema.get("required", ()) else ""
            yield f"| `{field}`{mark} | {_json_kind(kind)} |"


def _name(schema: dict[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return f"[{name}](#{name.lower()})" if name else ""


def _json_kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _name(schema)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_json_kind(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{value if isinstance(value, str) else json.dumps(value)}`" for value in schema["enum"])
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"list of {_json_kind(schema.get('items', {}))}" + _most(schema, "maxItems", "at most {}")
    if kind == "object" and "properties" in schema:
        return "{" + ", ".join(f"{key}: {_json_kind(each)}" for key, each in schema["properties"].items()) + "}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{kind}, {low} to {high}"
    return str(kind) + _most(schema, "maxLength", "at most {} characters")


def _most(schema: dict[str, Any], key: str, text: str) -> str:
    return ", " + text.format(f"{schema[key]:,}") if key in schema else ""


def prometheus() -> Iterator[str]:
    """The metrics at /metrics, from a gateway that has answered nothing."""
    from treadle.lm.engine import EngineStats
    from treadle.record.recording import Recording
    from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
    from treadle.serve.served_model import ServedModel

    class Idle:
        name = "none"

        def stats(self) -> EngineStats:
            return EngineStats()

    serving = Serving(ServedRelease("none", "none"), Idle())  # type: ignore[arg-type]
    rules, other = GatewaySettings(record="full", api_key=None), ServedModel("other", None, Recording("full"))  # type: ignore[arg-type]
    gateway = Gateway(serving, None, settings=rules, name="none", others=[other])  # type: ignore[arg-type]
    yield "| metric | kind | what it counts |"
    yield "|---|---|---|"
    for family in gateway.metrics.registry.collect():
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        yield f"| `{name}` | {family.type} | {_cell(family.documentation)} |"


# -- the console

VIEWS = {
    "/": "status:StatusPage",
    "/runs": "runs:RunsPage",
    "/runs/RUN": "run:RunPage",
    "/compare": "comparison:ComparePage",
    "/compare/runs": "side_by_side:SideBySidePage",
    "/interactions": "answers:AnswersPage",
    "/interactions/ID": "answer:AnswerPage",
    "/lineage": "lineage:LineagePage",
    "/review": "review:ReviewPage",
    "/approvals": "approvals:ApprovalsPage",
    "/approvals/NUMBER": "approvals:ApprovalPage",
}


def console() -> Iterator[str]:
    """The JSON of each page of the console: its view, and every dataclass that stands in one, field by field."""
    yield "| page | JSON |"
    yield "|---|---|"
    waiting: list[type] = []
    for path, name in VIEWS.items():
        module, _, view = name.partition(":")
        waiting.append(getattr(importlib.import_module(f"treadle.console.pages.{module}"), view))
        yield f"| `{path}` | `{view}` |"
    yield ""
    yield "| object | fields |"
    yield "|---|---|"
    known: set[type] = set()
    while waiting:
        view_type = waiting.pop(0)
        if view_type in known:
            continue
        known.add(view_type)
        hints = typing.get_type_hints(view_type)
        fields = {each.name: hints[each.name] for each in dataclasses.fields(view_type)}
        fields = {name: hint for name, hint in fields.items() if not name.startswith("drawn")}  # pictures, not promised
        waiting.extend(part for hint in fields.values() for part in _dataclasses_in(hint))
        shown = ", ".join(f"`{field}: {_json_hint(hint)}`" for field, hint in fields.items())
        yield f"| `{view_type.__name__}` | {_cell(shown)} |"


def _dataclasses_in(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from _dataclasses_in(part)


def _json_hint(hint: Any) -> str:
    """An annotation as JSON has it."""
    parts = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return " or ".join(repr(part) for part in parts)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_json_hint(part) for part in parts)
    if origin is tuple and parts[-1:] != (...,):
        return "[" + ", ".join(_json_hint(part) for part in parts) + "]"
    if origin in (tuple, list, collections.abc.Sequence):
        return f"list of {_json_hint(parts[0])}"
    if origin in (dict, collections.abc.Mapping):
        return f"object of {_json_hint(parts[1])}"
    plain = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", Any: "any"}
    return plain.get(hint) or getattr(hint, "__name__", str(hint))


# -- scripts


def script(place: str) -> Iterator[str]:
    """A file of the package as it is, for others to read."""
    yield "```python"
    yield from (ROOT / "src" / "treadle" / place).read_text(encoding="utf-8").splitlines()
    yield "```"


# -- pages

PARTS: dict[str, Callable[..., Iterator[str]]] = {
    "settings": settings,
    "steps": steps,
    "commands": commands,
    "parts": parts,
    "calls": calls,
    "python": python,
    "extending": extending,
    "http": http,
    "prometheus": prometheus,
    "console": console,
    "script": script,
    "benchmark": benchmark,
    "tasks": tasks,
    "targets": targets,
}


def render(text: str) -> str:
    """The page with every generated part as it should be."""

    def fill(match: re.Match[str]) -> str:
        name, *arguments = match[2].split()
        lines = list(PARTS[name](*arguments))
        body = re.sub(r"\n{3,}", "\n\n", "\n".join(lines).strip("\n"))
        return f"{match[1]}{body}\n{match[3]}"

    return _MARKER.sub(fill, text)


def pages() -> list[Path]:
    """Everything that may have generated parts."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` say which are not up to date."""
    check = arguments == ["--check"]
    if arguments and not check:
        sys.stderr.write("usage: python scripts/reference.py [--check]\n")
        return 2
    stale = 0
    for page in pages():
        text = page.read_text(encoding="utf-8")
        fresh = render(text)
        if fresh == text:
            continue
        stale += 1
        if check:
            sys.stderr.write(f"{page.relative_to(ROOT)} is not up to date; run: python scripts/reference.py\n")
        else:
            page.write_text(fresh, encoding="utf-8")
            sys.stdout.write(f"{page.relative_to(ROOT)} written\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
