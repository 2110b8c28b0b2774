"""The loss of a batch, piece by piece, and its gradients are those of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tiny_models import write_model
from treadle.lm import head_loss
from treadle.lm.packing import IGNORED

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    folder = write_model(tmp_path / "model", request.param)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture
def batch(model: Any) -> tuple[dict[str, Any], Any]:
    torch.manual_seed(3)
    ids = torch.randint(3, model.config.vocab_size, (3, 17))
    targets = torch.randint(3, model.config.vocab_size, (3 * 17,))
    targets[::5] = IGNORED
    return {"input_ids": ids, "use_cache": False}, targets


def _plain(model: Any, inputs: dict[str, Any], targets: Any) -> Any:
    logits = model(**inputs).logits.float().flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


def _gradients(model: Any, loss: Any) -> dict[str, Any]:
    model.zero_grad(set_to_none=True)
    (loss / 7).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("places", [1, 8, 1000])
def test_it_is_the_loss_of_the_whole(
    model: Any, batch: tuple[dict[str, Any], Any], places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(head_loss._PIECE, "cpu", 4 * model.config.vocab_size * places)
    expected, found = _plain(model, *batch), head_loss.summed_loss(model, *batch)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = _gradients(model, found), _gradients(model, expected)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-4, atol=1e-5), name
    assert head_loss.losses(model, *batch).sum().item() == pytest.approx(expected.item(), rel=1e-5)
    with torch.no_grad():
        assert head_loss.summed_loss(model, *batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_some_places_alone(model: Any, batch: tuple[dict[str, Any], Any]) -> None:
    inputs, targets = batch
    places = (targets != IGNORED).nonzero().squeeze(1)
    found = head_loss.summed_loss(model, inputs, targets[places], places)
    assert found.item() == pytest.approx(_plain(model, *batch).item(), rel=1e-5)
    assert head_loss.summed_loss(model, inputs, targets[:0], places[:0]).item() == 0.0


def test_a_fixed_head_and_one_that_is_corrected(model: Any, batch: tuple[dict[str, Any], Any]) -> None:
    model.requires_grad_(False)
    layer = model.base_model.layers[0].mlp.up_proj if model.config.model_type == "llama" else model.base_model.ln_f
    layer.weight.requires_grad_(True)
    head = model.get_output_embeddings()
    expected = _gradients(model, _plain(model, *batch))
    found = _gradients(model, head_loss.summed_loss(model, *batch))
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], each, rtol=1e-4, atol=1e-5) for name, each in expected.items())
    head.register_forward_hook(lambda _head, _given, logits: logits * 2)
    corrected = head_loss.summed_loss(model, *batch)
    assert corrected.item() == pytest.approx(_plain(model, *batch).item(), rel=1e-5)
    for name, each in _gradients(model, _plain(model, *batch)).items():
        assert torch.allclose(_gradients(model, head_loss.summed_loss(model, *batch))[name], each, rtol=1e-4)


def test_in_bfloat16_it_is_as_near_as_autograd(model: Any, batch: tuple[dict[str, Any], Any]) -> None:
    exact = _gradients(model, _plain(model, *batch))
    model.to(torch.bfloat16)
    ours = _gradients(model, head_loss.summed_loss(model, *batch))
    theirs = _gradients(model, _plain(model, *batch))

    def away(found: dict[str, Any]) -> float:
        return sum(float((found[name].float() - each).norm()) for name, each in exact.items())

    assert away(ours) < 1.1 * away(theirs)
