"""A pickle is refused where weights are expected, and read on an explicit word alone, without a network."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from treadle.cli.models import models
from treadle.core.errors import UserError
from treadle.lm.safetensors_folder import check_folder
from treadle.lm.unpickling import convert


@pytest.fixture
def pickled(tmp_path: Path, tiny_llama: Path) -> Path:
    """A model as it was written years ago."""
    folder = tmp_path / "old"
    shutil.copytree(tiny_llama, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_on_the_word_alone(pickled: Path, tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights only as a pickle.*treadle models --unpickle"):
        check_folder(pickled)
    out = tmp_path / "new"
    done = CliRunner().invoke(models, ["--unpickle", str(pickled), "--out", str(out)], catch_exceptions=False)
    assert "as safetensors" in done.stdout
    check_folder(out)
    found, wanted = load_file(out / "model.safetensors"), load_file(tiny_llama / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert (out / "tokenizer.json").read_bytes() == (tiny_llama / "tokenizer.json").read_bytes()
    assert not list(out.glob("*.bin"))
    with pytest.raises(UserError, match="is there already"):
        convert(pickled, out)


class _Bad:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_with_code_is_not_run(pickled: Path, tmp_path: Path) -> None:
    marker, before = tmp_path / "ran", sorted(tmp_path.iterdir())
    for write in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
        write({"weight": _Bad(marker)}, pickled / "pytorch_model.bin")
        with pytest.raises(
            UserError, match="holds more than tensors, which could be a program; nothing of it"
        ) as refused:
            convert(pickled, tmp_path / "new")
        assert "\n" not in str(refused.value)
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_no_mapping_of_tensors_is_refused(pickled: Path, tmp_path: Path, tiny_llama: Path) -> None:
    torch.save({"weight": [1, 2]}, pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="not a mapping from names to tensors"):
        convert(pickled, tmp_path / "new")
    (pickled / "pytorch_model.bin").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match="cannot be converted"):
        convert(pickled, tmp_path / "new")
    with pytest.raises(UserError, match="weights as a pickle"):
        convert(tiny_llama, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_one_line(pickled: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        convert(pickled, pickled / "config.json" / "new")


def test_the_process_has_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = (
            "import socket, sys\n"
            "from treadle.lm.unpickling import _without_network\n"
            f"socket.create_connection(('127.0.0.1', {port}), 5).close()\n"
            "_without_network()\n"
            f"socket.create_connection(('127.0.0.1', {port}), 5)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "OSError" in done.stderr.splitlines()[-1] or "ConnectionRefusedError" in done.stderr.splitlines()[-1]
    assert done.stderr.count("create_connection") >= 1
    assert "line 5" in done.stderr  # the second one


def test_both_folders_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="belong together"):
        CliRunner().invoke(models, ["--unpickle", str(tmp_path)], catch_exceptions=False)
