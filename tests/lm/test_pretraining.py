"""Training from nothing: losses beside transformers' own, the same weights after a fall, less loss than before."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from treadle.core.digest import blake3_file
from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.bulk_encoder import BulkEncoder
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.initial_model import SENTINELS, create_model, model_class, parameters_of, shape_for
from treadle.lm.objective import Maker, Objective, objective_for
from treadle.lm.packed_documents import write_packed
from treadle.lm.packed_rows import PackedRows
from treadle.lm.packing import IGNORED, PADDING
from treadle.lm.pretraining import PretrainingSettings, held_out, losses_by_place, pretrain, summed_loss
from treadle.lm.tokenizer_training import train_tokenizer
from treadle.lm.training import StepReport

WIDTH = 48
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "one",
    "red",
    "bird",
    "fly",
    "over",
    "green",
    "hills",
    "while",
    "rain",
    "fell",
]
FAMILIES = ("llama", "gpt2", "bert", "t5")


def _texts() -> list[str]:
    draw = np.random.default_rng(0)
    return [
        " ".join(WORDS[(start + step) % len(WORDS)] for step in range(int(draw.integers(5, 90))))
        for start in draw.integers(0, len(WORDS), 60).tolist()
    ]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, _texts, kind="bpe", vocabulary=320, special=["<|endoftext|>", "<mask>"])
    return folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> PackedRows:
    folder = tmp_path_factory.mktemp("packed")
    encoder = BulkEncoder(Tokenizer.from_file(str(tokenizer / "tokenizer.json")))
    named = [(f"doc:{number:064x}", text) for number, text in enumerate(_texts())]
    write_packed(folder, "train", named, encoder, width=WIDTH, ids="uint16", end=0)
    return PackedRows(
        np.fromfile(folder / "train.ids", dtype="<u2"),
        np.fromfile(folder / "train.ends", dtype="<i8"),
        np.fromfile(folder / "train.rows", dtype="<i8"),
        WIDTH,
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> dict[str, Path]:
    found = {}
    for family in FAMILIES:
        found[family] = tmp_path_factory.mktemp(family)
        create_model(found[family], tokenizer, architecture=family, size="300K", context=64, seed=3)
    return found


SETTINGS = PretrainingSettings(tokens=8 * 4 * WIDTH, batch=4, threads=1, precision="float32", learning_rate=3e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", ["2M", "10M", "124M", "1B"])
def test_a_size_is_met(family, size: str) -> None:
    parameters = parameters_of(size)
    shape = shape_for(family, parameters, 8_000, 512)
    from treadle.lm.initial_model import config_for

    with torch.device("meta"):
        model = model_class(family).from_config(config_for(family, shape, 8_000, 512, {"eos": 0, "pad": 0}))
    assert model.num_parameters() == pytest.approx(parameters, rel=0.15)
    assert 16 <= shape.width / shape.layers <= 160


def test_families_that_read_in_another_way_are_refused() -> None:
    assert (objective_for("qwen2"), objective_for("bert"), objective_for("t5")) == ("causal", "masked", "spans")
    for family in ("roberta", "bart", "modernbert"):
        with pytest.raises(UserError, match=f"{family} cannot be pretrained here"):
            objective_for(family)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="10 apples"):
        parameters_of("10 apples")
    with pytest.raises(UserError, match="leave no room for layers"):
        shape_for("llama", 2_000_000, 200_000, 512)


@pytest.mark.parametrize(("family", "parameters", "vocabulary"), [("t5", 700_000, 352), ("bert", 400_000, 512)])
def test_between_two_widths_the_nearer_is_taken(family, parameters: int, vocabulary: int) -> None:
    """Widths go in steps of a head, which for the smallest are far apart."""
    from treadle.lm.initial_model import config_for

    shape = shape_for(family, parameters, vocabulary, 512)
    config = config_for(family, shape, vocabulary, 512, {"eos": 0, "pad": 0})
    with torch.device("meta"):
        model = model_class(family).from_config(config)
    assert model.num_parameters() == pytest.approx(parameters, rel=0.4)


def test_the_same_seed_gives_the_same_model(tmp_path: Path, tokenizer: Path, models: dict[str, Path]) -> None:
    create_model(tmp_path / "again", tokenizer, architecture="llama", size="300K", context=64, seed=3)
    create_model(tmp_path / "other", tokenizer, architecture="llama", size="300K", context=64, seed=4)
    first = blake3_file(models["llama"] / "model.safetensors")
    assert blake3_file(tmp_path / "again" / "model.safetensors") == first
    assert blake3_file(tmp_path / "other" / "model.safetensors") != first


def _model(folder: Path, objective: Objective):
    kind = model_class({"masked": "bert", "spans": "t5"}.get(objective, ""))
    return torch_runtime.load(folder, kind, attn_implementation="eager").eval()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_causal_loss_is_that_of_each_piece_alone(family: str, models: dict[str, Path], packed: PackedRows) -> None:
    model = _model(models[family], "causal")
    batch = Maker("causal", packed, models[family], 0).batch(0, [0, 1, 2])
    with torch.no_grad():
        ours = float(summed_loss(model, batch, "cpu"))
        theirs = 0.0
        for row in (0, 1, 2):
            for place in packed.examples(row):
                ids = torch.tensor(packed.example(place))[None]
                if ids.shape[1] > 1:
                    theirs += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_masked_loss_does_not_depend_on_its_neighbors(models: dict[str, Path], packed: PackedRows) -> None:
    model = _model(models["bert"], "masked")
    row = next(row for row in range(len(packed)) if len(packed.examples(row)) > 1)
    batch = Maker("masked", packed, models["bert"], 0).batch(0, [row])
    with torch.no_grad():
        losses = losses_by_place(model, batch, "cpu")[0]
        for segment in range(int(batch.segments.max()) + 1):
            here = batch.segments[0] == segment
            labels = torch.tensor(batch.targets[0][here])[None]
            if (labels != IGNORED).any():
                alone = model(input_ids=torch.tensor(batch.ids[0][here])[None], labels=labels).loss
                assert float(losses[here].sum()) == pytest.approx(
                    float(alone) * int((labels != IGNORED).sum()), rel=1e-4
                )


def test_what_is_hidden(models: dict[str, Path], packed: PackedRows) -> None:
    maker = Maker("masked", packed, models["bert"], 0)
    rows = list(range(len(packed)))
    batch, laid = maker.batch(0, rows), packed.lay_out(rows)
    hidden, real = batch.targets != IGNORED, batch.segments != PADDING
    assert 0.10 < hidden.sum() / real.sum() < 0.20
    assert (batch.targets[hidden] == laid.ids[hidden]).all()
    assert (batch.ids[~hidden] == laid.ids[~hidden]).all()
    assert 0.7 < (batch.ids[hidden] == 1).mean() < 0.9  # <mask>
    again = maker.batch(0, rows)
    assert (again.ids == batch.ids).all()
    assert (maker.batch(1, rows).ids != batch.ids).any()


def test_spans_can_be_put_back(models: dict[str, Path], packed: PackedRows) -> None:
    batch = Maker("spans", packed, models["t5"], 0).batch(0, [0, 1])
    places = [place for row in (0, 1) for place in packed.examples(row)]
    first = json.loads((models["t5"] / "config.json").read_text())["vocab_size"] - SENTINELS
    assert batch.decoder is not None
    for at, place in enumerate(places):
        source = batch.ids[at][batch.segments[at] != PADDING].tolist()[:-1]
        target = batch.targets[at][batch.targets[at] != IGNORED].tolist()[:-1]
        spans: dict[int, list[int]] = {}
        for token in target:
            if token >= first:
                spans[token] = []
            else:
                spans[max(spans, key=list(spans).index)].append(token)
        whole = [token for each in source for token in (spans[each] if each >= first else [each])]
        assert whole == packed.example(place).tolist()
        assert batch.decoder[at][1 : len(target) + 1].tolist() == target


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns(tmp_path: Path, family: str, models: dict[str, Path], packed: PackedRows) -> None:
    objective = objective_for(family)
    settings = replace(SETTINGS, objective=objective, tokens=SETTINGS.tokens * 6)
    before = held_out(models[family], packed, objective)
    seen: list[StepReport] = []
    result = pretrain(models[family], tmp_path / "out", packed, settings, on_step=seen.append)
    after = held_out(tmp_path / "out", packed, objective)
    assert [report.step for report in seen] == list(range(1, result.steps + 1))
    assert result.loss < 0.8 * result.first_loss
    assert sum(after.nats) < 0.8 * sum(before.nats)
    assert after.learned == before.learned
    assert sum(after.learned) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_it_goes_on_to_the_same_weights(
    tmp_path: Path, family: str, models: dict[str, Path], packed: PackedRows
) -> None:
    settings = replace(SETTINGS, objective=objective_for(family))
    pretrain(models[family], tmp_path / "whole", packed, settings)

    class Fall(Exception):
        pass

    def fall(report: StepReport) -> None:
        if report.step == 5:
            raise Fall

    with Checkpoints(tmp_path / "kept", every=0.0) as checkpoints, pytest.raises(Fall):
        pretrain(models[family], tmp_path / "gone", packed, settings, checkpoints, fall)
    assert not (tmp_path / "gone").exists()
    with Checkpoints(tmp_path / "kept", every=0.0) as checkpoints:
        result = pretrain(models[family], tmp_path / "on", packed, settings, checkpoints)
    assert 1 <= result.resumed <= 5
    assert blake3_file(tmp_path / "on" / "model.safetensors") == blake3_file(tmp_path / "whole" / "model.safetensors")


def test_rows_in_parts_learn_the_same(tmp_path: Path, models: dict[str, Path], packed: PackedRows) -> None:
    one = pretrain(models["llama"], tmp_path / "one", packed, SETTINGS)
    two = pretrain(models["llama"], tmp_path / "two", packed, replace(SETTINGS, micro=1))
    assert two.loss == pytest.approx(one.loss, rel=1e-3)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    tensors = {"0.weight": torch.arange(4.0)}
    with Checkpoints(tmp_path / "kept", every=0.0) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, tensors, {"tokens": step})
        checkpoints.wait()
        first, last = sorted((tmp_path / "kept").iterdir())
        last.write_bytes(last.read_bytes()[:-7])
        found = checkpoints.latest()
        assert found is not None
        assert found.step == 2
        assert found.notes["tokens"] == 2
        first.write_bytes(b"")
        assert checkpoints.latest() is None
        checkpoints.discard()
    assert not (tmp_path / "kept").exists()


def test_what_makes_no_sense_is_refused(tmp_path: Path, models: dict[str, Path], packed: PackedRows) -> None:
    wide = PackedRows(packed._ids, packed._ends, packed._rows, 4_096)
    with pytest.raises(UserError, match="4096 tokens, and the model reads 64"):
        pretrain(models["gpt2"], tmp_path / "out", wide, SETTINGS)
    with pytest.raises(UserError, match=r"the (loss|gradient) became"):
        pretrain(models["llama"], tmp_path / "out", packed, replace(SETTINGS, learning_rate=1e30, clip=1e30))
    assert not (tmp_path / "out").exists()


def test_sentinels_are_those_that_the_tokenizer_has(
    models: dict[str, Path], packed: PackedRows, tmp_path: Path
) -> None:
    folder = tmp_path / "t5"
    shutil.copytree(models["t5"], folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([f"<extra_id_{number}>" for number in reversed(range(SENTINELS))])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] = 64 * (tokenizer.get_vocab_size() // 64 + 1)  # filled up, as T5's own is
    (folder / "config.json").write_text(json.dumps(config))
    batch = Maker("spans", packed, folder, 0).batch(0, [0])
    first = tokenizer.token_to_id("<extra_id_0>")
    assert batch.targets[0][0] == first
    assert first in batch.ids[0]
    assert batch.ids.max() <= first < config["vocab_size"] - 1
    config["vocab_size"] = Tokenizer.from_file(str(models["t5"] / "tokenizer.json")).get_vocab_size() + 5
    shutil.copyfile(models["t5"] / "tokenizer.json", folder / "tokenizer.json")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="there is no room for 100 such words"):
        Maker("spans", packed, folder, 0)
