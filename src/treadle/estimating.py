"""What `develop` will take, before anything runs: parameters, tokens, memory, time and, with a price, what it costs.

A few steps are timed with random weights; nothing is trained, and nothing is written to the record. Not counted:
collecting, preparing, evaluating and serving. What is remembered costs nothing, and is counted all the same.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from treadle.core.errors import UserError
from treadle.cycle import Turn, begin
from treadle.evals.task import load_task
from treadle.project import Project

if TYPE_CHECKING:
    from treadle.lm.training_probe import Kind, Load, Shape

_CLASSIFIER_ROWS = 16  # texts of a step


@dataclass(frozen=True)
class Part:
    """One training. ``tokens`` are those that are computed, padding included; ``memory`` in bytes. Of a classifier
    both are upper bounds, as if every text had ``max_length`` tokens."""

    step: str
    tokens: int
    steps: int
    seconds: float
    memory: int


@dataclass(frozen=True)
class Estimate:
    """``available``: bytes of memory there are. ``timed``: False where not even the weights and their optimizer fit, so
    that nothing was timed, and memory is theirs alone."""

    shape: Shape
    parts: tuple[Part, ...]
    available: int
    timed: bool
    device: str
    precision: str
    threads: int
    price: float | None = None

    @property
    def fits(self) -> bool:
        """Whether the memory is enough."""
        return all(part.memory <= self.available for part in self.parts)

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return sum(part.seconds for part in self.parts)

    @property
    def cost(self) -> float | None:
        """In the currency of the price."""
        return None if self.price is None or not self.timed else self.seconds / 3600 * self.price

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle develop --estimate --json`` promises."""
        timed = self.timed
        return {
            "model": asdict(self.shape),
            "trainings": [
                {
                    "step": part.step,
                    "tokens": part.tokens,
                    "steps": part.steps,
                    "seconds": round(part.seconds, 3) if timed else None,
                    "memory_bytes": part.memory,
                }
                for part in self.parts
            ],
            "tokens": sum(part.tokens for part in self.parts),
            "seconds": round(self.seconds, 3) if timed else None,
            "memory_bytes": max(part.memory for part in self.parts),
            "memory_available_bytes": self.available,
            "fits": self.fits,
            "price_per_hour": self.price,
            "cost": None if self.cost is None else round(self.cost, 6),
            "device": self.device,
            "precision": self.precision,
            "threads": self.threads if timed else None,
        }

    def lines(self) -> list[str]:
        """For a person."""
        shape = self.shape
        kind = f"{shape.family}, width {shape.width}, {shape.layers} layers, vocabulary {shape.vocabulary:,}"
        lines = [f"{shape.parameters:,} parameters: {kind}"]
        for part in self.parts:
            took = _time(part.seconds) if self.timed else "not timed"
            name = part.step.removeprefix("develop.")
            lines.append(f"{name:<16} {part.tokens:>13,} tokens  {took:>9}  {_size(part.memory):>8} of memory")
        if not self.fits:
            lines.append(f"does not fit: there are {_size(self.available)} of memory; take a smaller model or batch")
        if self.timed:
            cost = "" if self.cost is None else f", costs {self.cost:.2f} at {self.price:g} an hour"
            lines.append(f"{_time(self.seconds)} of training in all{cost}")
            threads = f" with {self.threads} threads" if self.device == "cpu" else ""
            lines.append(f"timed by a few steps on this machine's {self.device} in {self.precision}{threads}")
        return lines


def estimate(project: Project, *, price: float | None = None) -> Estimate:
    """``UserError`` for a classifier whose number of texts is not known yet, because nothing was prepared, and for
    what a class or a function of one's own would do."""
    from treadle.lm import training_probe as probe

    develop = project.file.develop
    if develop.fit is not None:
        raise UserError(
            f"develop --estimate: how {develop.fit} trains is not known; leave fit out, for the task's own way"
        )
    if develop.init is not None and develop.init.model is not None:
        usual = f"for a usual {develop.init.architecture}"
        raise UserError(
            f"develop --estimate: what {develop.init.model} computes is not known; leave model out, {usual}"
        )
    config = _config(project)
    loads = _loads(project, config)
    shape = probe.shape_of(config, next(iter(loads.values())).kind)
    adapters = {
        name: probe.adapters_of(config, load.lora, load.kind) if load.lora else 0 for name, load in loads.items()
    }

    configs = {
        name: config if load.teacher is None else _student(project, load.teacher) for name, load in loads.items()
    }

    def memory_of(name: str, kept: float) -> int:
        load = loads[name]
        of = shape if load.teacher is None else probe.shape_of(configs[name], load.kind)
        return probe.memory_of(of, load, kept, precision=precision, adapters=adapters[name])

    (device, precision), available = probe.here(), probe.available_memory()
    least = max(memory_of(name, 0) for name in loads)
    timed = least <= available
    paces = {name: probe.measure(configs[name], load) for name, load in loads.items()} if timed else {}
    kept = {name: paces[name].kept if timed else 0 for name in loads}
    memory = {name: memory_of(name, kept[name]) for name in loads}
    parts = tuple(
        Part(
            name,
            load.steps * load.rows * load.width,
            load.steps,
            paces[name].seconds(load) if timed else 0.0,
            memory[name],
        )
        for name, load in loads.items()
    )
    threads = max((pace.threads for pace in paces.values()), default=0)
    return Estimate(shape, parts, available, timed, device, precision, threads, price)


def _config(project: Project) -> Any:
    """Of the model that will be trained."""
    from treadle.lm import initial_model, training_probe
    from treadle.lm.base_model import resolve
    from treadle.lm.initial_tokenizer import vocabulary_for

    file = project.file
    init, own = file.develop.init, file.prepare.tokenizer
    if init is None:
        return training_probe.config_of(resolve(str(file.develop.base_model)).path)
    if init.tokenizer is not None:
        vocabulary = initial_model.vocabulary_size(resolve(init.tokenizer).path)
    else:
        vocabulary = own.vocabulary if own else init.vocabulary or vocabulary_for(init.size)
    parameters = initial_model.parameters_of(init.size)
    shape = initial_model.shape_for(init.architecture, parameters, vocabulary, init.context)
    return initial_model.config_for(init.architecture, shape, vocabulary, init.context, {"eos": 0, "pad": 0})


def _loads(project: Project, config: Any) -> dict[str, Load]:
    """The trainings by step."""
    from treadle.lm.objective import objective_for
    from treadle.lm.pretraining import PretrainingSettings
    from treadle.lm.training_probe import Load

    settings, found = project.file.develop, {}
    asked = settings.pretrain
    if asked is not None:
        steps = PretrainingSettings(asked.tokens, batch=asked.batch).steps(asked.width)
        found["develop.pretrain"] = Load(objective_for(config.model_type), asked.batch, asked.width, steps)
    task = load_task(project.file.task, project.folder)
    kind: Kind = "classify"
    if task.fit is None:
        kind = "causal"
    elif config.is_encoder_decoder and not task.labeled:
        kind = "sequences"
    taught = settings.distill is not None and settings.distill.teacher is not None
    if not taught and not (settings.prefer is not None and settings.prefer.instead):
        found["develop.train" if task.fit is None else "develop.fit"] = _fine_tuning(project, kind)
    if not taught and settings.prefer is not None:
        found["develop.prefer"] = _preferring(project)
    if settings.distill is not None:
        found["develop.distill"] = _distilling(project, kind, config)
    return found


def _fine_tuning(project: Project, kind: Kind) -> Load:
    from treadle.lm.embedding_training import BATCH
    from treadle.lm.training import TrainingSettings
    from treadle.lm.training_probe import Load

    settings = project.file.develop
    if kind != "causal":
        together, texts = (BATCH, 2) if project.file.task == "embed" else (_CLASSIFIER_ROWS, 1)
        steps = settings.epochs * -(-_prepared(project).prepared.dataset.counts()["train"] // together)
        return Load(kind, texts * together, settings.max_length, steps, _rank(project))
    tuning = TrainingSettings(token_budget=settings.tokens, width=settings.max_length)
    return Load("causal", tuning.rows, tuning.width, tuning.steps, _rank(project))


def _preferring(project: Project) -> Load:
    """Both answers of each pair, each a row of its own at worst; the model judges every pair before it learns."""
    from treadle.lm.training_probe import Load

    settings = project.file.develop
    asked = settings.prefer
    assert asked is not None
    pairs = sum(bool(example.rejected) for example in _prepared(project).prepared.dataset.examples("train"))
    if not pairs:
        raise UserError("develop --estimate: no example of the training split has a rejected answer to learn from")
    batch = min(asked.batch, pairs)
    steps = asked.epochs * -(-pairs // asked.batch)
    if asked.tokens is not None:
        steps = max(1, -(-asked.tokens // (2 * batch * settings.max_length)))
    judged = min(1.0, pairs / (steps * batch))
    return Load("causal", 2 * batch, settings.max_length, steps, _rank(project), judged)


def _distilling(project: Project, kind: Kind, config: Any) -> Load:
    """Each text once an epoch, packed where it writes; the teacher judges it every time."""
    from treadle.lm.attention_mask import crosses
    from treadle.lm.distilled_generator import ROWS
    from treadle.lm.packing import pack
    from treadle.lm.training_probe import Load, config_of

    settings = project.file.develop
    asked, turn = settings.distill, _prepared(project)
    assert asked is not None
    named = turn.teacher()
    rows, texts, tokens = _CLASSIFIER_ROWS, turn.prepared.dataset.counts()["train"], turn.prepared.tokens
    if kind == "causal":
        rows = ROWS
    if kind == "causal" and tokens is not None and not tokens.pending:
        learned = tokens.examples("train")
        texts = len(pack(learned, width=settings.max_length, alone=crosses(config)).rows)
    steps, teacher = asked.epochs * -(-texts // rows), config if named is None else config_of(named.path())
    return Load(kind, rows, settings.max_length, steps, judged=1.0, teacher=teacher)


def _student(project: Project, teacher: Any) -> Any:
    """The configuration of what is distilled from one with that."""
    from treadle.lm.fewer_layers import config_with, layers_of

    asked = project.file.develop.distill
    assert asked is not None
    layers = None if asked.layers == "half" else asked.layers
    return config_with(teacher, layers_of(teacher.num_hidden_layers, layers))


def _rank(project: Project) -> int | None:
    from treadle.lm.training import TrainingSettings

    return TrainingSettings(token_budget=1).lora_rank if project.file.develop.method == "lora" else None


def _prepared(project: Project) -> Turn:
    """As far as to what is learned from, which has to be there already."""
    turn = begin(project, planning=True)
    turn.go("prepare")
    if turn.prepared.dataset.pending:
        raise UserError("develop --estimate: how many texts there are is not known yet; run treadle prepare first")
    return turn


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
