"""Weights out of a pickle, on somebody's explicit word: ``python -m treadle.lm.unpickling MODEL OUT``.

A pickle can run code while it is read. It is read in a process that has no network and a limit of time, by torch's own
reader, which takes tensors and plain containers and refuses everything else.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError

WORD = "treadle models --unpickle"  # what says it
_FAILED = 4  # the exit code of a process that said why
_NEW_USER, _NEW_NETWORK = 0x1000_0000, 0x4000_0000  # unshare(2)
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth")
_BESIDE = ("*.json", "*.txt", "*.model", "LICENSE*", "README*")  # of a model's folder, what is text


def convert(model: Path, out: Path, *, seconds: int = 900) -> None:
    """Write the model folder ``model`` to ``out``, with safetensors in place of its pickles, whole or not at all.

    ``UserError`` when there is none, when one holds more than weights, and when no process without network can be had.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; name a new folder")
    if not pickles(model) or not (model / "config.json").is_file():
        raise UserError(f"{model}: expected a model folder with config.json and weights as a pickle")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        command = [sys.executable, "-P", "-m", __name__, str(model.resolve()), str(partial.resolve()), str(seconds)]
        # No secret of this process is there to be found.
        known = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "TMPDIR", "LANG") if name in os.environ}
        done = subprocess.run(command, env=known, capture_output=True, timeout=2 * seconds, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            why = said[-1] if said and done.returncode == _FAILED else f"its process ended with {done.returncode}"
            raise UserError(f"{model}: cannot be converted ({why})")
        for pattern in _BESIDE:
            for path in sorted(model.glob(pattern)):
                if path.is_file() and "index" not in path.name:
                    shutil.copyfile(path, partial / path.name)
        partial.replace(out)
    except subprocess.TimeoutExpired:
        raise UserError(f"{model}: cannot be converted (not read within {2 * seconds} seconds)") from None
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error}); free some space or name another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def pickles(model: Path) -> list[Path]:
    """The weight files of a folder that are pickles; one as PyTorch's models are called goes before others."""
    for pattern in _PICKLES:
        if found := sorted(model.glob(pattern)):
            return found
    return []


def _without_network() -> None:
    """From here on this process has no network but a loopback of its own; ``OSError`` where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK) and libc.unshare(_NEW_USER | _NEW_NETWORK):
        code = ctypes.get_errno()
        raise OSError(code, f"no process without network can be had here: {os.strerror(code)}; run it as root")


def _write(model: Path, out: Path) -> None:
    import torch
    from safetensors.torch import save_file

    found: dict[str, Any] = {}
    for path in pickles(model):
        held = torch.load(path, map_location="cpu", weights_only=True)
        inner = held.get("state_dict", held) if isinstance(held, dict) else held
        if not isinstance(inner, dict) or not all(isinstance(each, torch.Tensor) for each in inner.values()):
            raise ValueError(f"{path.name} is not a mapping from names to tensors")
        found |= inner
    # Tensors that share their memory would be refused: each is written as its own.
    save_file(
        {name: each.clone().contiguous() for name, each in found.items()}, out / "model.safetensors", {"format": "pt"}
    )


def main(model: str, out: str, seconds: str) -> int:
    """Convert; the exit code."""
    try:
        _without_network()
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
        _write(Path(model), Path(out))
    except pickle.UnpicklingError:  # torch's own words advise to load it whatever it holds
        sys.stderr.write("damaged, or it holds more than tensors, which could be a program; nothing of it was run\n")
        return _FAILED
    except Exception as error:  # whatever a damaged file raises is told in one line
        sys.stderr.write(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}\n")
        return _FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
