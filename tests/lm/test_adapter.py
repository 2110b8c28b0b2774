"""An adapter beside its base: written by training, gone on with, merged as it is opened, refused if it does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from apart_release import write_apart, write_spec
from tiny_models import write_model
from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.adapter import CONFIG, WEIGHTS, adapter_of, read_adapter, write_adapter
from treadle.lm.engine import GenerateRequest
from treadle.lm.engines import BlockingEngine, find_engine
from treadle.lm.packing import TokenizedExample
from treadle.lm.training import TrainingSettings, train

SMALL = TrainingSettings(
    method="lora",
    token_budget=12 * 2 * 48,
    rows=2,
    width=48,
    learning_rate=1e-2,
    threads=1,
    precision="float32",
    save_dtype="float32",
)
EXAMPLES = [TokenizedExample([5 + n, 6, 7, 8 + n, 9], [False, False, False, True, True]) for n in range(20)]


def put_together(base: Path, adapter: Path, release: Path) -> Path:
    """A release of a base and an adapter that was trained."""
    shutil.copytree(base, release / "model")
    shutil.copytree(adapter, release / "adapter")
    write_spec(release)
    return release


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def test_base_and_adapter_are_the_merged_model(tmp_path: Path, tiny_llama: Path) -> None:
    train(tiny_llama, tmp_path / "tuned", EXAMPLES, SMALL)
    release = put_together(tiny_llama, tmp_path / "tuned" / "adapter", tmp_path / "release")
    merged = weights(AutoModelForCausalLM.from_pretrained(tmp_path / "tuned"))
    base = weights(AutoModelForCausalLM.from_pretrained(tiny_llama))
    found = weights(torch_runtime.load(release / "model", AutoModelForCausalLM))
    body = weights(torch_runtime.load(release / "model", AutoModel))
    assert any(not torch.equal(merged[name], base[name]) for name in merged)
    for name, expected in merged.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=1e-6)
        if name.startswith("model."):
            torch.testing.assert_close(body[name.removeprefix("model.")], expected, rtol=1e-6, atol=1e-6)


def test_the_files_are_those_that_peft_writes(tmp_path: Path, tiny_llama: Path) -> None:
    train(tiny_llama, tmp_path / "tuned", EXAMPLES, SMALL)
    told = json.loads((tmp_path / "tuned" / "adapter" / CONFIG).read_text())
    assert (told["peft_type"], told["r"], told["lora_alpha"], told["bias"]) == ("LORA", 16, 32.0, "none")
    assert told["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    pairs, rank, alpha = read_adapter(tmp_path / "tuned" / "adapter")
    assert (len(pairs), rank, alpha) == (14, 16, 32.0)
    down, up = pairs["model.layers.1.mlp.down_proj"]
    assert (tuple(down.shape), tuple(up.shape)) == ((16, 96), (64, 16))


def test_a_later_training_goes_on_with_the_adapter(tmp_path: Path, tiny_llama: Path) -> None:
    first = train(tiny_llama, tmp_path / "one", EXAMPLES, SMALL)
    on = replace(SMALL, adapter=tmp_path / "one" / "adapter", lora_rank=4)
    second = train(tiny_llama, tmp_path / "two", EXAMPLES, on)
    fresh = train(tiny_llama, tmp_path / "fresh", EXAMPLES, SMALL)
    assert second.first_loss < 0.9 * first.first_loss == pytest.approx(0.9 * fresh.first_loss)
    _, rank, alpha = read_adapter(tmp_path / "two" / "adapter")
    assert (rank, alpha) == (16, 32.0)  # that of what it goes on from
    release = put_together(tiny_llama, tmp_path / "two" / "adapter", tmp_path / "release")
    merged = weights(AutoModelForCausalLM.from_pretrained(tmp_path / "two"))
    found = weights(torch_runtime.load(release / "model", AutoModelForCausalLM))
    for name, expected in merged.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=1e-6)


def test_what_is_no_adapter_of_the_model_is_not_gone_on_with(tmp_path: Path, tiny_llama: Path) -> None:
    release = write_apart(tiny_llama, tmp_path / "release")
    adapter = release / "adapter"
    pairs, rank, alpha = read_adapter(adapter)
    names = sorted(pairs)
    down, up = pairs[names[0]]
    for wrong, said in (
        ({name: pairs[name] for name in names[1:]}, "an adapter for another base, whose layers are others"),
        ({**pairs, names[0]: (down[:, 1:], up)}, f"{names[0]} is of other sizes than the model's"),
    ):
        write_adapter(adapter, wrong, rank=rank, alpha=alpha)
        with pytest.raises(UserError, match=said):
            train(tiny_llama, tmp_path / "out", EXAMPLES, replace(SMALL, adapter=adapter))
    config = json.loads((adapter / CONFIG).read_text())
    for changed, said in (
        ({"use_dora": True}, r"adapter_config\.json: use_dora is True; only plain LoRA"),
        ({"r": 0}, "expected LORA of a rank from 1"),
        ({"lora_alpha": None}, "expected PEFT's configuration"),
    ):
        (adapter / CONFIG).write_text(json.dumps(config | changed))
        with pytest.raises(UserError, match=said):
            read_adapter(adapter)


def _cut(release: Path) -> None:
    path = release / "adapter" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def _changed(release: Path) -> None:
    path = release / "adapter" / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _other_base(release: Path) -> None:
    write_model(release / "model", seed=9)


def _wider_base(release: Path) -> None:
    shutil.rmtree(release / "model")
    write_model(release / "model", "gpt2")


def _missing(release: Path) -> None:
    (release / "adapter" / CONFIG).unlink()


def _other_rank(release: Path) -> None:
    write_spec(release, rank=3)


WRONG = [
    (_cut, r"adapter_model\.safetensors: truncated or damaged"),
    (_changed, "not the adapter of its release"),
    (_other_base, "an adapter for another base"),
    (_wider_base, "an adapter for another base"),
    (_missing, r"adapter_config\.json: No such file"),
    (_other_rank, "its rank is 4, and the release says 3"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_what_does_not_belong_together_is_refused(
    tmp_path: Path, tiny_llama: Path, wrong: Callable[[Path], None], said: str
) -> None:
    release = write_apart(tiny_llama, tmp_path / "release")
    wrong(release)
    with (
        pytest.raises(UserError, match=said) as caught,
        BlockingEngine("transformers", release, threads=1, here=True),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_every_opening_of_the_release_has_the_adapter(tmp_path: Path, tiny_llama: Path) -> None:
    one, two = (write_apart(tiny_llama, tmp_path / f"r{seed}", seed=seed) for seed in (1, 2))
    asked = [GenerateRequest("r", (5, 6, 7, 8), max_tokens=12, ignore_eos=True)]
    said = []
    for folder in (one, one / "model", two, tiny_llama):
        with BlockingEngine("transformers", folder, threads=1, settings={"precision": "f32"}, here=True) as engine:
            said.append((engine.generate_all(asked)[0], tuple(engine.embed(["a text"])[0])))
    assert said[0] == said[1]
    assert len({text for text, _ in said}) == len({vector for _, vector in said}) == 3


def test_an_engine_that_would_ignore_it_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    release = write_apart(tiny_llama, tmp_path / "release")
    assert find_engine("auto", release).name == "transformers"
    with pytest.raises(UserError, match=r"engine openvino loads no adapters, and the release in .* keeps one"):
        find_engine("openvino", release / "model")
    (release / "release.json").write_text(json.dumps({"optimization": {"adapter": {"digest": 1}}}))
    with pytest.raises(UserError, match="neither digest nor base nor rank"):
        adapter_of(release)
    assert adapter_of(tiny_llama) is None
