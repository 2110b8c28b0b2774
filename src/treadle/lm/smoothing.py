"""Making activations easy to round: SmoothQuant (Xiao et al. 2023, arXiv:2211.10438).

A few channels of what goes into a matrix are far larger than the others, and take the whole of a scale that they share.
Each is divided by a factor where it is made, in the norm or the matrix before, and the weights it meets are multiplied
by the same one: the model computes what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.conversation import with_system_prompt
from treadle.lm.optimization import Material

_STRENGTH = 0.4  # the paper's alpha; best of .3, .4, .5, .7 on SmolLM2-135M with groups of 64 to 192
_CONVERSATIONS, _TOKENS = 32, 512  # looked at, and of each
_LEAST, _SPREAD = 1e-5, 1e2  # of a magnitude; of a factor, either way
_TOLERANCE = 1e-2  # of a log-probability; what is not folded as it should be is off by whole units


def smooth(material: Material, out: Path) -> None:
    """Write a model of Llama's family to ``out`` that gives the same answers, with its channels evened out.

    ``UserError`` where there is no conversation to see them on, or the model is of another build.
    """
    torch, transformers = torch_runtime.libraries()
    examples = _examples(material)
    if not examples:
        raise UserError("no conversation to find the range of activations on; expected a training split")
    model: Any = torch_runtime.load(material.model, transformers.AutoModelForCausalLM).eval()
    layers = getattr(getattr(model, "model", None), "layers", None)
    if layers is None or not all(_is_known(layer) for layer in layers):
        kind = getattr(model.config, "model_type", "?")
        raise UserError(f"{material.model}: activations of a {kind} cannot be evened out; expected the build of Llama")
    with torch.no_grad():
        before = _logprobs(model, examples[0])
        peaks = _peaks(model, layers, examples, material.progress)
        for place, layer in enumerate(layers):
            _fold(layer, {name: peaks[place, name] for name in _INPUTS})
        off = float((_logprobs(model, examples[0]) - before).abs().max())
    if not off < _TOLERANCE:
        raise UserError(f"{material.model}: it answers differently with its activations evened out (by {off:.2g})")
    torch_runtime.save(model, material.model, out)


_INPUTS: dict[str, Callable[[Any], Any]] = {
    "attention": lambda layer: layer.self_attn.q_proj,
    "heads": lambda layer: layer.self_attn.o_proj,
    "feed_forward": lambda layer: layer.mlp.gate_proj,
    "gated": lambda layer: layer.mlp.down_proj,
}  # a matrix that is given each


def _is_known(layer: Any) -> bool:
    """Whether a layer has the parts of Llama's, which Mistral's and Qwen's have too."""
    parts = "input_layernorm", "post_attention_layernorm", "self_attn.v_proj", "self_attn.k_proj", "mlp.up_proj"
    try:
        found = [layer.get_submodule(name) for name in parts] + [of(layer) for of in _INPUTS.values()]
    except AttributeError:
        return False
    return all(getattr(each, "weight", None) is not None for each in found)


def _examples(material: Material) -> list[list[int]]:
    """Ids of some conversations, from all over."""
    from treadle.lm.tokenizer import ChatTokenizer

    every = list(zip_longest(material.conversations, material.tools))
    tokenizer = ChatTokenizer.load(material.model)
    found = []
    for conversation, tools in every[:: max(1, -(-len(every) // _CONVERSATIONS))]:
        told = with_system_prompt(conversation, material.system_prompt)
        found.append(tokenizer.encode_for_training(told, tools=tools)[0][:_TOKENS])
    return [ids for ids in found if ids]


def _logprobs(model: Any, ids: Sequence[int]) -> Any:
    import torch

    return model(torch.tensor([ids])).logits[0].log_softmax(-1)


def _peaks(
    model: Any, layers: Any, examples: Sequence[Sequence[int]], progress: Callable[[int, int, str], None]
) -> dict[tuple[int, str], Any]:
    """The largest magnitude of each channel, by layer and input."""
    import torch

    peaks: dict[tuple[int, str], Any] = {}

    def watch(key: tuple[int, str]) -> Callable[[Any, Any], None]:
        def look(_module: Any, given: Any) -> None:
            found = given[0].flatten(0, -2).abs().amax(0)
            peaks[key] = torch.maximum(peaks[key], found) if key in peaks else found

        return look

    watching = [
        of(layer).register_forward_pre_hook(watch((place, name)))
        for place, layer in enumerate(layers)
        for name, of in _INPUTS.items()
    ]
    for done, ids in enumerate(examples, 1):
        model(torch.tensor([ids]))
        progress(done, len(examples), "conversations")
    for each in watching:
        each.remove()
    return peaks


def _fold(layer: Any, peaks: dict[str, Any]) -> None:
    """Divide each input's channels where they are made, and multiply the columns that they meet."""
    attention, feed_forward = layer.self_attn, layer.mlp
    asked = [attention.q_proj, attention.k_proj, attention.v_proj]
    factors = _factors(peaks["attention"], _columns(asked))
    _divide(layer.input_layernorm, factors)
    _multiply(asked, factors)
    # A head of values is read by several queries, which share its factors.
    size = attention.head_dim
    heads = attention.v_proj.weight.shape[0] // size
    peak, weight = (
        each.view(heads, -1, size).amax(1).flatten() for each in (peaks["heads"], _columns([attention.o_proj]))
    )
    factors = _factors(peak, weight)
    _divide(attention.v_proj, factors)
    shared = attention.o_proj.weight.shape[1] // len(factors)
    _multiply([attention.o_proj], factors.view(heads, 1, size).expand(-1, shared, -1).flatten())
    gates = [feed_forward.gate_proj, feed_forward.up_proj]
    factors = _factors(peaks["feed_forward"], _columns(gates))
    _divide(layer.post_attention_layernorm, factors)
    _multiply(gates, factors)
    factors = _factors(peaks["gated"], _columns([feed_forward.down_proj]))
    _divide(feed_forward.up_proj, factors)
    _multiply([feed_forward.down_proj], factors)


def _columns(matrices: Sequence[Any]) -> Any:
    """The largest magnitude of the weights that each channel meets."""
    import torch

    return torch.stack([each.weight.abs().amax(0) for each in matrices]).amax(0)


def _factors(peak: Any, weight: Any) -> Any:
    """Equation 4 of the paper, their geometric mean 1, so that what is large already does not grow."""
    found = peak.clamp(min=_LEAST) ** _STRENGTH / weight.clamp(min=_LEAST) ** (1 - _STRENGTH)
    return (found / found.log().mean().exp()).clamp(1 / _SPREAD, _SPREAD)


def _divide(made_by: Any, factors: Any) -> None:
    """A norm's weights, or the rows and the bias of a matrix."""
    weight = made_by.weight
    weight.div_(factors if weight.ndim == 1 else factors[:, None])
    if getattr(made_by, "bias", None) is not None:
        made_by.bias.div_(factors)


def _multiply(met_by: Sequence[Any], factors: Any) -> None:
    for each in met_by:
        each.weight.mul_(factors)
