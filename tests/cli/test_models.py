"""What there is to begin from, held against the models themselves."""

from __future__ import annotations

import json
from pathlib import Path

import command
from treadle.lm import training_probe
from treadle.lm.base_model import KNOWN, resolve


def test_known_models_are_as_they_say(tmp_path: Path) -> None:
    done = command.run("models", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    listed = {model["name"]: model for model in found["models"]}
    assert set(listed) == {known.name for known in KNOWN}
    for name, model in listed.items():
        config = training_probe.config_of(resolve(name).path)
        kind = "causal" if config.model_type == "llama" else "classify"
        shape = training_probe.shape_of(config, kind)
        assert (model["family"], model["installed"]) == (config.model_type, True)
        assert abs(model["parameters"] / shape.parameters - 1) < 0.01
        assert model["fits"] is (model["memory"] <= found["available"])
    assert "chat" in listed["smollm2-135m-instruct"]["tasks"]
    assert {"classify", "tag", "embed"} <= set(listed["all-minilm-l6-v2"]["tasks"])
    assert {family["name"]: family["tasks"] for family in found["families"]}["t5"].count("translate") == 1


def test_a_table_for_a_person(tmp_path: Path) -> None:
    done = command.run("models", folder=tmp_path)
    assert "smollm2-135m-instruct  llama" in done.stdout
    assert "of memory on this machine's cpu" in done.stdout
