"""Taking weights or whole layers out of a model folder, and training what is left again for a short while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.conversation import with_system_prompt
from treadle.lm.model_folder import longest, read_config
from treadle.lm.optimization import Material
from treadle.lm.safetensors_folder import tensors

_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
# Enough to find the way back, not to learn something new: a fraction of what training takes.
_TOKENS = 24_000
_EPOCHS = 1
_ROWS = 3_000  # labeled texts at most


def prune_weights(model: Path, out: Path, share: float) -> int:
    """Make the ``share`` of each matrix's weights that are nearest to 0 exactly 0 (Han et al. 2015); embeddings and
    vectors stay. Returns how many became 0. ``UserError`` for a folder without matrices that could be cut."""
    torch, modules = _torch(model)
    zeroed = 0
    with torch.no_grad():
        for module in modules.modules():
            weight = getattr(module, "weight", None)
            if type(module).__name__ not in ("Linear", "Conv1D") or weight is None or weight.ndim != 2:
                continue
            if weight is _shared_embedding(modules):
                continue
            count = int(share * weight.numel())
            if count:
                limit = weight.abs().flatten().kthvalue(count).values
                mask = weight.abs() > limit
                zeroed += int((~mask).sum())
                weight.mul_(mask)
    if not zeroed:
        raise UserError(f"{model}: no matrix to take weights from")
    _save(modules, model, out)
    return zeroed


def drop_layers(model: Path, out: Path, keep: float) -> list[int]:
    """Write the model with the share ``keep`` of its layers, taken evenly, the first and the last always among them.

    Returns the places of those that stay. ``UserError`` where the layers are not one stack, or there are too few.
    """
    _, modules = _torch(model)
    name, layers = _stack(modules, model)
    wanted = max(2, round(keep * len(layers)))
    if wanted >= len(layers):
        raise UserError(f"{model}: {len(layers)} layers are too few to take any out")
    places = sorted({round(place * (len(layers) - 1) / (wanted - 1)) for place in range(wanted)})
    parent = modules.get_submodule(name.rpartition(".")[0]) if "." in name else modules
    setattr(parent, name.rpartition(".")[2], type(layers)([layers[place] for place in places]))
    for key in _COUNTS:
        if hasattr(modules.config, key):
            setattr(modules.config, key, len(places))
            break
    kinds = getattr(modules.config, "layer_types", None)
    if kinds:
        modules.config.layer_types = [kinds[place] for place in places]
    for place, layer in enumerate(getattr(parent, name.rpartition(".")[2])):
        attention: Any = getattr(layer, "self_attn", None)
        if hasattr(attention, "layer_idx"):
            attention.layer_idx = place
    _save(modules, model, out)
    return places


def recover(cut: Path, out: Path, material: Material) -> None:
    """Train the cut model on what the whole one learned from: a generator on a budget of tokens, a classifier for one
    pass over at most a few thousand texts."""
    if material.labeled:
        from treadle.lm.classification import train_classifier
        from treadle.lm.fitting import FitSettings

        texts, labels = zip(*_spread(material.labeled, _ROWS), strict=True)
        settings = FitSettings(learning_rate=1e-4, epochs=_EPOCHS, seed=material.seed)
        settings = replace(settings, max_length=min(settings.max_length, longest(cut, settings.max_length)))
        train_classifier(
            cut, out, texts, labels, settings, lambda report: material.progress(report.step, report.steps, "steps")
        )
        return
    if not material.conversations:
        raise UserError("layers can only be taken out of a model whose training data is here: there is no dataset")
    from treadle.lm.packing import TokenizedExample
    from treadle.lm.tokenizer import ChatTokenizer
    from treadle.lm.training import TrainingSettings, train

    tokenizer = ChatTokenizer.load(cut)
    examples = []
    for conversation, tools in zip_longest(material.conversations, material.tools):
        told = with_system_prompt(conversation, material.system_prompt)
        examples.append(TokenizedExample(*tokenizer.encode_for_training(told, tools=tools)))
    budget = min(_TOKENS, 3 * sum(len(example.ids) for example in examples))
    tuning = TrainingSettings(token_budget=budget, seed=material.seed)
    width = min(longest(cut, tuning.width), max(tuning.width, *(len(example.ids) for example in examples)))
    train(
        cut,
        out,
        examples,
        replace(tuning, width=width),
        lambda report: material.progress(report.step, report.steps, "steps"),
    )


def _save(modules: Any, model: Path, out: Path) -> None:
    """With numbers of the type that the model's own file has, which is exact: nothing was computed with them."""
    import torch

    kinds = {tensor.dtype for tensor in tensors(model)}
    if kinds in ({"BF16"}, {"F16"}):
        modules = modules.to(torch.bfloat16 if "BF16" in kinds else torch.float16)
    torch_runtime.save(modules, model, out)


def _spread(rows: Sequence[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    """About so many, from all over, and at least one of each label: the head has a row for each."""
    step = max(1, -(-len(rows) // most))
    found = list(rows[::step])
    there = {label for _, label in found}
    for text, label in rows:
        if label not in there:
            there.add(label)
            found.append((text, label))
    return found


def _torch(model: Path) -> tuple[Any, Any]:
    try:
        torch_runtime.patient_threads()
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    found = read_config(model).get("architectures") or []
    labels = any(name.endswith("ForSequenceClassification") for name in found)
    kind = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModelForCausalLM
    return torch, torch_runtime.load(model, kind)


def _stack(modules: Any, model: Path) -> tuple[str, Any]:
    """The one list of layers, by its name."""
    found = {name: each for name, each in modules.named_modules() if type(each).__name__ == "ModuleList"}
    inner = {name: each for name, each in found.items() if not any(name.startswith(f"{other}.") for other in found)}
    stacks = {name: each for name, each in inner.items() if len(each) > 1}
    if len(stacks) != 1:
        raise UserError(f"{model}: expected one stack of layers, found {len(stacks)}; it cannot be cut evenly")
    return next(iter(stacks.items()))


def _shared_embedding(modules: Any) -> Any:
    embedding = modules.get_input_embeddings()
    return None if embedding is None else embedding.weight
