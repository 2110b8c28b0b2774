"""What a training will take, before it runs: time and memory by a few steps with random weights.

    weights and optimizer   16 bytes a parameter in float32: the weight, its gradient and AdamW's two moments; 20 in
                            bfloat16, which keeps weight and gradient twice (``learner``)
                            of a frozen one, under LoRA, 8 or 6: the weight, and the base's own in float32
    activations             what the steps keep for the way back, counted, for as many rows as a training has at a time
    logits                  places x vocabulary x 16 bytes (both number types, softmax, gradients), or the part of them
                            that is held at a time
    a teacher               4 bytes a parameter in float32, 2 in bfloat16, and its logits

On activations and logits comes a tenth.

Steps are timed on as many rows as a training has, or 2,048 tokens of them, after a first one that does not count; the
optimizer's part is timed apart.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from treadle.lm import torch_runtime
from treadle.lm.block_attention import use_blocks
from treadle.lm.initial_model import model_class
from treadle.lm.learner import AdamW, Adapted, Learner, LoraLearner
from treadle.lm.objective import Batch
from treadle.lm.packing import IGNORED
from treadle.lm.pretraining import summed_loss

Kind = Literal["causal", "masked", "spans", "classify", "sequences"]

_LEARNED = {"causal": 1.0, "masked": 0.15, "spans": 0.15, "classify": 0.0, "sequences": 1.0}
_OF_LOGITS, _LOGITS = 16, 1 << 30  # bytes of one, and of the part that is held at a time
_OF_TEACHER = 8  # bytes of one of its logits, which are held whole: its number type and its distribution
_ROOM = 1.1  # what is kept does not lie without gaps
_TOKENS = 2_048  # of a timed step, unless one row has more
_SECONDS, _MOST = 1.0, 5  # of the timed steps: until so long, at most so many
_LEFT_OVER = 470 << 20  # bytes that python, torch and transformers take by themselves: measured


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a model, as its configuration says it. ``layers``: of both halves."""

    family: str
    parameters: int
    width: int
    layers: int
    heads: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Load:
    """One training: ``rows`` of ``width`` tokens a step, all held at a time. ``steps``: optimizer steps. ``lora``: the
    rank, where all but adapters of this rank is frozen. ``judged``: how often each row is also judged without learning
    from it, by a ``teacher`` (a configuration, whose weights are held too) or by the model itself."""

    kind: Kind
    rows: int
    width: int
    steps: int
    lora: int | None = None
    judged: float = 0.0
    teacher: Any = None


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one row forward and back, and of one optimizer step, with so many threads; ``kept``: bytes of a row
    that are kept for the way back, without logits; ``judging``: seconds of one row that is only judged."""

    row: float
    update: float
    threads: int
    kept: float
    judging: float = 0.0

    def seconds(self, load: Load) -> float:
        """Of a whole training."""
        return load.steps * (load.rows * (self.row + load.judged * self.judging) + self.update)


def shape_of(config: Any, kind: Kind = "causal") -> Shape:
    """What a transformers configuration comes to, with the head of such a training; nothing is allocated."""
    model = _empty(config, kind)
    layers = int(getattr(config, "num_hidden_layers", None) or config.num_layers)
    layers += int(getattr(config, "num_decoder_layers", None) or 0)
    heads = int(getattr(config, "num_attention_heads", 1))
    return Shape(
        str(config.model_type), int(model.num_parameters()), int(config.hidden_size), layers, heads, config.vocab_size
    )


def adapters_of(config: Any, rank: int, kind: Kind = "causal") -> int:
    """How many parameters LoRA trains: of adapters beside every linear layer, and of heads. Nothing is allocated."""
    parts = Adapted.of(_empty(config, kind))
    adapters = sum(rank * (each.in_features + each.out_features) for each in parts.layers.values())
    return adapters + sum(each.numel() for each in parts.heads.values())


def _empty(config: Any, kind: Kind) -> Any:
    torch, _ = torch_runtime.libraries()
    with torch.device("meta"):
        return _class_for(config, kind).from_config(config)


def _class_for(config: Any, kind: Kind) -> Any:
    _, transformers = torch_runtime.libraries()
    if kind == "classify":  # of any encoder, also of one that cannot be pretrained here
        return transformers.AutoModelForSequenceClassification
    if kind == "sequences":
        return transformers.AutoModelForSeq2SeqLM
    return model_class(config.model_type)


def config_of(folder: Path) -> Any:
    """The configuration of a model folder."""
    _, transformers = torch_runtime.libraries()
    return transformers.AutoConfig.from_pretrained(folder, local_files_only=True)


def memory_of(shape: Shape, load: Load, kept: float, *, precision: str, adapters: int = 0) -> int:
    """Bytes that a training needs, by the list above; ``kept``: of a row (``Pace``); ``adapters``: parameters of those
    that ``load.lora`` trains."""
    held = held_by(shape.parameters, precision, adapters if load.lora is not None else None)
    places = load.rows * load.width * _LEARNED[load.kind]
    if load.teacher is None:
        logits = min(places * shape.vocabulary * _OF_LOGITS, _LOGITS)
    else:
        logits = places * shape.vocabulary * (_OF_LOGITS + _OF_TEACHER)
        held += shape_of(load.teacher, load.kind).parameters * (2 if precision == "bfloat16" else 4)
    return round(held + _ROOM * (load.rows * kept + logits) + _LEFT_OVER)


def held_by(parameters: int, precision: str, adapters: int | None = None) -> int:
    """Bytes of weights, gradients and moments; with ``adapters`` only so many parameters are trained."""
    trained, frozen = (20, 6) if precision == "bfloat16" else (16, 8)
    return parameters * trained if adapters is None else parameters * frozen + adapters * trained


def available_memory() -> int:
    """Bytes that a training may take here: of the graphics card where there is one, else of the machine."""
    torch, _ = torch_runtime.libraries()
    if torch_runtime.device() == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def here() -> tuple[str, str]:
    """Device and number type of a training on this machine."""
    device = torch_runtime.device()
    return device, torch_runtime.precision("auto", device)


def measure(config: Any, load: Load) -> Pace:
    """Time a few steps of a model with random weights on random tokens. Takes no more memory than the training."""
    torch, _ = torch_runtime.libraries()
    device = torch_runtime.device()
    precision = torch_runtime.precision("auto", device)
    try:
        with torch_runtime.session(None, 0) as threads:
            kind = _class_for(config, load.kind)
            model = kind.from_config(config, attn_implementation=torch_runtime.attention(device, load.width))
            model = use_blocks(model, device).to(device).train()
            optimizer = AdamW(1e-6, 1.0, 0.0, getattr(torch, precision))
            learner = _learner(model, load, optimizer)
            count = min(load.rows, max(1, _TOKENS // load.width))
            kept = _kept(model, load, count, device)
            rows, updates = _timed(model, learner, load, count, device)
            judging = _judged(model, load, count, device) if load.judged else 0.0
    finally:
        torch_runtime.release_memory()
    return Pace(min(rows) / count, min(updates), threads, kept, judging / count)


def _learner(model: Any, load: Load, optimizer: AdamW) -> Learner:
    if load.lora is not None:
        return LoraLearner(model, optimizer, rank=load.lora, alpha=1.0)
    return Learner([p for p in model.parameters() if p.requires_grad], optimizer)


def _kept(model: Any, load: Load, count: int, device: str) -> float:
    """Bytes of a row that a step keeps for the way back, weights and logits left out."""
    import torch

    known = {each.untyped_storage().data_ptr() for each in model.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known and tensor.shape[-1:] != (model.config.vocab_size,):
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = _loss(model, load, count, device)
    del loss
    return sum(found.values()) / count


def _judged(model: Any, load: Load, count: int, device: str) -> float:
    """Seconds in which ``count`` rows go forward, after a first time that does not count."""
    import torch

    judge = model
    if load.teacher is not None:
        attention = torch_runtime.attention(device, load.width)
        judge = _class_for(load.teacher, load.kind).from_config(load.teacher, attn_implementation=attention)
        judge = use_blocks(judge, device).to(device)
        judge = judge.to(getattr(torch, torch_runtime.precision("auto", device))).eval()
    took = []
    with torch.no_grad():
        for _ in range(2):
            began = time.perf_counter()
            float(_loss(judge, load, count, device))
            took.append(time.perf_counter() - began)
    return took[-1]


def _timed(model: Any, learner: Learner, load: Load, count: int, device: str) -> tuple[list[float], list[float]]:
    rows: list[float] = []
    updates: list[float] = []
    while not rows or (sum(rows) + sum(updates) < _SECONDS and len(rows) < _MOST):
        for counts in (False, True) if not rows else (True,):  # the first makes the optimizer's moments
            began = time.perf_counter()
            loss = _loss(model, load, count, device)
            loss.backward()
            float(loss.detach())
            between = time.perf_counter()
            learner.step(1e-6)
            if counts:
                rows.append(between - began)
                updates.append(time.perf_counter() - between)
    return rows, updates


def _loss(model: Any, load: Load, count: int, device: str) -> Any:
    """Of some rows of random tokens."""
    import numpy as np
    import torch

    draw = np.random.default_rng(0)
    ids = draw.integers(1, model.config.vocab_size, (count, load.width))
    end = getattr(model.config, "eos_token_id", None)
    if load.kind == "classify":
        if isinstance(end, int):
            ids[ids == end] = end - 1 if end > 1 else end + 1
            ids[:, -1] = end  # T5's head reads the state at the one token that ends a text
        given = torch.from_numpy(ids).to(device)
        logits = model(input_ids=given, attention_mask=torch.ones_like(given)).logits
        return torch.nn.functional.cross_entropy(logits.float(), torch.zeros(count, dtype=torch.long, device=device))
    if load.kind == "sequences":  # as if each target were as long as its source
        given = torch.from_numpy(ids).to(device)
        logits = model(input_ids=given, decoder_input_ids=given, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), given.flatten())
    learned = draw.random(ids.shape) < _LEARNED[load.kind]
    learned[:, 0] = True
    positions, segments = np.broadcast_to(np.arange(load.width), ids.shape), np.zeros_like(ids)
    decoder = None
    targets = np.where(learned, ids, IGNORED)
    if load.kind == "spans":
        targets = ids[:, : max(2, round(load.width * _LEARNED["spans"] * 4 / 3))].copy()
        decoder = targets.copy()
    batch = Batch(ids, positions, segments, targets, causal=load.kind == "causal", decoder=decoder)
    return summed_loss(model, batch, device) / max(1, batch.learned)
