"""The Trainer of transformers, for a few real steps of a tiny model, with the callback in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tiny_models import write_model
from treadle.core.artifacts import Artifact
from treadle.core.verify import verify
from treadle.record.run_view import whole
from treadle.tracking import open_record

pytest.importorskip("accelerate")


class Sequences:
    """Eight sequences of 16 tokens."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= len(self):
            raise IndexError
        import torch

        ids = torch.arange(index, index + 16)
        return {"input_ids": ids, "labels": ids}


class Broken(Sequences):
    """As those, until the sixth."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index > 5:
            raise RuntimeError("the disk of the data went away")
        return super().__getitem__(index)


def trainer(folder: Path, data: Sequences, callback: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    model = AutoModelForCausalLM.from_pretrained(write_model(folder / "tiny"), dtype=torch.float32)
    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        max_steps=4,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        logging_steps=1,
        save_steps=4,
        eval_strategy="steps",
        eval_steps=2,
        report_to=[],
        seed=11,
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        hub_token="hf_" + "Q" * 34,
    )
    return Trainer(model, arguments, train_dataset=data, eval_dataset=Sequences(), callbacks=[callback])


def test_a_training_is_a_run(tmp_path: Path) -> None:
    from treadle.integrations.transformers import TreadleCallback

    project = tmp_path / "project"
    project.mkdir()
    callback = TreadleCallback("fine tune/1", folder=project, tags={"team": "search"}, artifact=True)
    trained = trainer(tmp_path, Sequences(), callback)
    result = trained.train()
    with open_record(project) as record:
        (run,) = record.runs.find()
        assert (run.step, run.status) == ("experiment.fine-tune-1", "done")
        assert run.parameters["learning_rate"] == 1e-3
        assert run.parameters["max_steps"] == 4
        assert run.parameters["model_type"] == "llama"
        assert run.parameters["model_parameters"] == sum(each.numel() for each in trained.model.parameters())
        assert not any("hub" in name or "dir" in name for name in run.parameters)
        assert run.facts["seed"] == 11
        logged = [row for row in trained.state.log_history if "loss" in row]
        shown = whole(record, run)
        assert [(p["step"], p["loss"]) for p in shown["points"] if "loss" in p] == [
            (r["step"], r["loss"]) for r in logged
        ]
        assert [p["step"] for p in shown["points"] if "eval_loss" in p] == [2, 4]
        assert run.metrics["train_loss"] == pytest.approx(result.training_loss)
        assert shown["tags"] == {"team": "search"}
        assert Artifact(run.outputs["model"], record.store).has("model.safetensors")
        assert verify(record.workspace).ok


def test_one_that_breaks_off_is_a_failure(tmp_path: Path) -> None:
    from treadle.integrations.transformers import TreadleCallback

    callback = TreadleCallback(folder=tmp_path)
    with pytest.raises(RuntimeError, match="went away"):
        trainer(tmp_path, Broken(), callback).train()
    assert callback.run is not None
    trainer(tmp_path, Sequences(), callback).train()
    with open_record(tmp_path) as record:
        assert [run.status for run in record.runs.find()] == ["done", "failed"]
