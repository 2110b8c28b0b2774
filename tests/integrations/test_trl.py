"""The SFTTrainer of TRL, for a few real steps of a tiny model, with the callback in it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tiny_models import write_model
from treadle.core.verify import verify
from treadle.record.run_view import whole
from treadle.tracking import open_record


@pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_training_is_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from treadle.integrations.transformers import TreadleCallback

    tiny = write_model(tmp_path / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    arguments = SFTConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=4,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        seed=11,
        use_cpu=True,
        bf16=False,
        max_length=32,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    data = Dataset.from_list([{"text": f"Clean your kettle with vinegar, {number} times."} for number in range(8)])
    project = tmp_path / "project"
    project.mkdir()
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[TreadleCallback("sft", folder=project)],
    )
    trainer.train()
    with open_record(project) as record:
        (run,) = record.runs.find()
        assert (run.step, run.status, run.facts["seed"]) == ("experiment.sft", "done", 11)
        assert (run.parameters["max_length"], run.parameters["learning_rate"]) == (32, 1e-2)
        points = [(point["step"], point["loss"]) for point in whole(record, run)["points"] if "loss" in point]
        assert points == [(row["step"], row["loss"]) for row in trainer.state.log_history if "loss" in row]
        assert [step for step, _ in points] == [1, 2, 3, 4]
        assert points[-1][1] < points[0][1]
        assert "mean_token_accuracy" in run.metrics  # what TRL adds to what the Trainer logs
        assert verify(record.workspace).ok
