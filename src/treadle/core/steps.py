"""Steps: functions from artifacts and settings to artifacts, remembered by key so that none runs twice.

The key is a digest over the step's name and version, its settings, the digests of its inputs, the seed where it
asks for one, and the versions of the packages it declares. Environment, threads, host and executor are recorded,
not keyed.
"""

from __future__ import annotations

import functools
import inspect
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from treadle.core.artifacts import Artifact
from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import TreadleError, UserError, nearest
from treadle.core.installed import version_of
from treadle.core.runs import Run

KEY_FORMAT = 1

R = TypeVar("R")
Input = Artifact | tuple[Artifact, ...] | None


@dataclass(frozen=True)
class Step(Generic[R]):
    """A decorated function with what its signature says of it."""

    function: Callable[..., R]
    name: str
    version: int
    packages: tuple[str, ...]
    tolerance: float = 0.0
    place: str | None = None

    def __call__(self, *inputs: Input, **settings: Any) -> R:
        """Run it as a plain function; nothing is recorded."""
        return self.function(*inputs, **settings)

    @functools.cached_property
    def signature(self) -> Signature:
        """Read when first used, so that decorating a function imports nothing."""
        return _read(self.name, self.function)


@dataclass(frozen=True)
class Signature:
    """Names of inputs and settings, kinds of inputs and outputs, and which of ``run`` and ``seed`` it asks for."""

    inputs: tuple[str, ...]
    kinds: tuple[type[Artifact], ...]
    settings: dict[str, inspect.Parameter]
    outputs: tuple[type[Artifact], ...]
    single: bool
    wants_run: bool
    wants_seed: bool
    required: tuple[str, ...]


def step(
    *,
    version: int,
    packages: tuple[str, ...] = (),
    name: str | None = None,
    tolerance: float = 0.0,
    place: str | None = None,
) -> Callable[[Callable[..., R]], Step[R]]:
    """Declare a step. Raise ``version`` when the function would give another result for the same input.

    ``packages`` are the distributions whose versions can change the result. ``tolerance`` is for a step whose bytes
    depend on threads or the time it takes: the share by which its metrics may be apart when it is done again.
    ``place``: the setting that says where it runs, for a step that can run elsewhere than here.
    """

    def decorate(function: Callable[..., R]) -> Step[R]:
        module = function.__module__.rpartition(".")[2]
        return Step(function, name or f"{module}.{function.__name__}", version, packages, tolerance, place)

    return decorate


def _read(name: str, function: Callable[..., Any]) -> Signature:
    hints = typing.get_type_hints(function)
    inputs, settings = [], {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            settings[parameter.name] = parameter
        else:
            inputs.append(parameter.name)
    returned = hints.get("return")
    single = typing.get_origin(returned) is not tuple
    outputs = (returned,) if single else typing.get_args(returned)
    if not all(isinstance(kind, type) and issubclass(kind, Artifact) for kind in outputs):
        raise TreadleError(f"step {name} must return an artifact or a tuple of artifacts, not {returned!r}")
    wants_run, wants_seed = "run" in settings, "seed" in settings
    settings = {key: value for key, value in settings.items() if key not in {"run", "seed"}}
    required = [each for each in inputs if type(None) not in typing.get_args(hints.get(each))]
    kinds = tuple(_kind(hints.get(each)) for each in inputs)
    return Signature(tuple(inputs), kinds, settings, outputs, single, wants_run, wants_seed, tuple(required))


def _kind(hint: Any) -> type[Artifact]:
    """The kind of artifact that an input is, or some are."""
    found = [hint, *typing.get_args(hint)]
    return next((each for each in found if isinstance(each, type) and issubclass(each, Artifact)), Artifact)


@dataclass(frozen=True)
class Call:
    """A step with its inputs and complete settings: what a key is made from."""

    step: Step[Any]
    inputs: dict[str, Input]
    settings: dict[str, Any]
    seed: int

    @property
    def pending(self) -> bool:
        """Whether an input does not exist yet, so that there is no key."""
        return any(artifact.pending for artifact in self.artifacts())

    def artifacts(self) -> list[Artifact]:
        """All input artifacts."""
        found: list[Artifact] = []
        for value in self.inputs.values():
            found.extend(value if isinstance(value, tuple) else [value] if value is not None else [])
        return found

    def input_digests(self) -> dict[str, Any]:
        """Digest by input name; a list where the input is a tuple, None where it was left out."""
        return {
            name: [each.digest for each in value] if isinstance(value, tuple) else value.digest if value else None
            for name, value in self.inputs.items()
        }

    def ingredients(self) -> dict[str, Any]:
        """Everything that enters the key, in readable form."""
        return {
            "format": KEY_FORMAT,
            "step": self.step.name,
            "version": self.step.version,
            "settings": self.settings,
            "inputs": self.input_digests(),
            "seed": self.seed if self.step.signature.wants_seed else None,
            "packages": {name: _version(name) for name in self.step.packages},
        }

    def key(self) -> str:
        """The step key."""
        return blake3_bytes(canonical_json(self.ingredients()))


def bind(step: Step[Any], inputs: tuple[Input, ...], settings: dict[str, Any], seed: int) -> Call:
    """Check a call against the step's signature and fill in defaults; ``UserError`` for a setting it does not know."""
    signature = step.signature
    if len(inputs) > len(signature.inputs):
        raise TreadleError(f"step {step.name} takes {len(signature.inputs)} artifacts, got {len(inputs)}")
    named: dict[str, Input] = dict.fromkeys(signature.inputs)
    named.update(zip(signature.inputs, inputs, strict=False))
    complete: dict[str, Any] = {}
    for key in settings:
        if key not in signature.settings:
            raise UserError(f"step {step.name} has no setting {key!r};{nearest(key, list(signature.settings))}")
    for key, parameter in signature.settings.items():
        if key in settings:
            complete[key] = settings[key]
        elif parameter.default is not parameter.empty:
            complete[key] = parameter.default
        else:
            raise UserError(f"step {step.name} needs the setting {key!r}")
    for name in signature.required[len(inputs) :]:
        raise TreadleError(f"step {step.name} needs the artifact {name!r}")
    return Call(step, named, _plain(complete), seed)


def execute(call: Call, run: Run) -> dict[str, Artifact]:
    """Run the function; its artifacts by name (``output``, or the artifact's kind, numbered where two are alike)."""
    signature = call.step.signature
    extra: dict[str, Any] = {}
    run.version = call.step.version
    if signature.wants_run:
        extra["run"] = run
    if signature.wants_seed:
        extra["seed"] = call.seed
    result = call.step.function(*call.inputs.values(), **call.settings, **extra)
    values = (result,) if signature.single else tuple(result)
    for value, kind in zip(values, signature.outputs, strict=True):
        if not isinstance(value, kind):
            raise TreadleError(f"step {call.step.name} gave {value!r} where it declares {kind.__name__}")
    return dict(zip(output_names(call.step), values, strict=True))


@runtime_checkable
class Elsewhere(Protocol):
    """Another machine that whole steps run on; the run and its rows stay here."""

    def execute(self, call: Call, run: Run) -> dict[str, Artifact]:
        """What ``execute`` gives, made there and brought here."""
        ...


def output_names(step: Step[Any]) -> list[str]:
    """Names of a step's outputs: the artifact's kind, with a number where two are of one kind."""
    kinds = [kind.kind for kind in step.signature.outputs]
    return [
        kind if kinds.count(kind) == 1 else f"{kind}_{kinds[: index + 1].count(kind)}"
        for index, kind in enumerate(kinds)
    ]


def result_of(step: Step[R], outputs: list[Artifact]) -> R:
    """Outputs in the shape that the function returns them."""
    return typing.cast("R", outputs[0] if step.signature.single else tuple(outputs))


def _plain(value: Any) -> Any:
    """Settings as JSON has them, so that a key does not depend on tuples or enums."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"a setting must be a finite number, not {value}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TreadleError(f"a setting must be JSON, not {type(value).__name__}")


def _version(package: str) -> str:
    return version_of(package) or "absent"
