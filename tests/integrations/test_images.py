"""What images are made of for each engine, on processors and on GPUs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from described_release import described
from treadle.core.errors import UserError
from treadle.integrations import docker_files
from treadle.integrations.docker_running import STOPPING
from treadle.integrations.vllm import VARIABLE
from treadle.serve.server import DRAIN_SECONDS
from treadle.stages.deploy.targets import find_target, render, shown


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def service_in(folder: Path) -> Any:
    """What Compose runs the release as."""
    return yaml.safe_load((folder / "compose.yaml").read_text())["services"]["helper"]


def check_dockerfile(path: Path) -> str:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--ignore", "DL3008", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return path.read_text()


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that says that vLLM is installed in it, as pip would have left it; where its packages lie."""
    home = tmp_path / "vllm-environment"
    venv.create(home, with_pip=False)
    (packages,) = home.glob("lib/python*/site-packages")
    install(packages, "vllm", "0.32.0+cpu", "torch==2.13.0+cpu", "msgspec", 'uvloop; sys_platform == "nothing"')
    install(packages, "torch", "2.13.0+cpu", "numpy[extra]", "left_out")
    for name, version in (("msgspec", "0.22.0"), ("numpy", "2.3.1"), ("intel-openmp", "2024.2.1"), ("unrelated", "1")):
        install(packages, name, version)
    monkeypatch.setenv(VARIABLE, str(home / "bin" / "python"))
    return packages


def install(packages: Path, name: str, version: str, *needs: str) -> None:
    said = "".join(f"Requires-Dist: {need}\n" for need in needs)
    folder = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{said}")


def test_torch_for_processors_comes_from_its_own_index(tmp_path: Path) -> None:
    render("docker", described(engine="transformers"), tmp_path / "cpu", {})
    pins = lines(tmp_path / "cpu" / "requirements.txt")
    assert pins[0] == "--extra-index-url https://download.pytorch.org/whl/cpu"
    assert [pin for pin in pins if re.match(r"torch==[0-9.]+\+cpu$", pin)]
    assert not any(pin.startswith(("nvidia-", "triton==")) for pin in pins)
    render("docker", described(engine="transformers"), tmp_path / "gpu", {"gpu": True})
    on_gpu = lines(tmp_path / "gpu" / "requirements.txt")
    assert [pin.removesuffix("+cpu") for pin in pins[1:]] == on_gpu  # PyPI's torch brings CUDA itself
    assert "+cpu" not in (tmp_path / "gpu" / "sbom.cdx.json").read_text()
    render("docker", described(engine="openvino"), tmp_path / "without", {})
    assert "torch" not in (tmp_path / "without" / "requirements.txt").read_text()


def test_the_image_has_vllm_in_an_environment_of_its_own(vllm: Path, tmp_path: Path) -> None:
    install(vllm, "torch", "2.13.0+cpu", "numpy[extra]", "left_out", "intel-openmp")
    written, _ = render("docker", described(engine="vllm"), tmp_path / "a", {"tool": "docker"})
    assert lines(tmp_path / "a" / "vllm.txt") == [
        "--extra-index-url https://wheels.vllm.ai/0.32.0/cpu",
        "--extra-index-url https://download.pytorch.org/whl/cpu",
        "intel-openmp==2024.2.1",
        "msgspec==0.22.0",
        "numpy==2.3.1",
        "torch==2.13.0+cpu",
        "vllm==0.32.0+cpu",
    ]
    text = check_dockerfile(tmp_path / "a" / "Dockerfile")
    assert re.search(r"^FROM docker\.io/library/python:3\.[0-9]+-slim-trixie$", text, re.MULTILINE)
    assert "pip --python /opt/vllm/bin/python install --no-cache-dir --find-links /tmp/wheels -r /tmp/vllm.txt" in text
    assert f"ENV {VARIABLE}=/opt/vllm/bin/python" in text
    assert "LD_PRELOAD=/opt/vllm/lib/libiomp5.so" in text
    assert "!vllm.txt" in lines(tmp_path / "a" / ".dockerignore")
    named = {
        each["name"]: each["version"]
        for each in json.loads((tmp_path / "a" / "sbom.cdx.json").read_text())["components"]
    }
    assert {"vllm": "0.32.0+cpu", "torch": "2.13.0+cpu"}.items() <= named.items()
    assert "treadle" in named
    assert "torch" not in {pin.partition("==")[0] for pin in lines(tmp_path / "a" / "requirements.txt")}
    # What vLLM compiles under /tmp is run from there.
    (_, run) = shown(find_target("docker", written.settings, None).apply(written))
    assert "--tmpfs /tmp:exec " in run
    assert "--gpus" not in run
    assert service_in(tmp_path / "a")["tmpfs"] == ["/tmp:exec"]
    render("docker", described(engine="vllm"), tmp_path / "b", {"tool": "docker"})
    for path in [*written.files, "treadle.json"]:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_the_image_for_a_gpu_has_vllms_build_for_one(vllm: Path, tmp_path: Path) -> None:
    written, _ = render("docker", described(engine="vllm"), tmp_path, {"tool": "docker", "gpu": True})
    # What the build for processors needs here says nothing of what this one needs there.
    index = "--extra-index-url https://download.pytorch.org/whl/cu129"
    assert lines(tmp_path / "vllm.txt") == [index, "vllm==0.32.0"]
    assert "LD_PRELOAD" not in check_dockerfile(tmp_path / "Dockerfile")
    (_, run) = shown(find_target("docker", written.settings, None).apply(written))
    assert "--gpus all" in run
    (_, run) = shown(find_target("docker", {**written.settings, "tool": "podman"}, None).apply(written))
    assert "--device nvidia.com/gpu=all" in run
    (device,) = service_in(tmp_path)["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    # Where the build for GPUs is installed, all of it is pinned.
    for path in vllm.glob("vllm-*"):
        path.rename(path.with_name("vllm-0.32.0.dist-info"))
    install(vllm, "vllm", "0.32.0", "torch==2.13.0", "msgspec")
    render("docker", described(engine="vllm"), tmp_path, {"tool": "docker", "gpu": True})
    assert lines(tmp_path / "vllm.txt") == [index, "msgspec==0.22.0", "numpy==2.3.1", "torch==2.13.0", "vllm==0.32.0"]


def test_where_there_is_no_vllm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    monkeypatch.setenv(VARIABLE, str(python))
    for script, said in (("exit 1", "says nothing of what is installed"), ("echo '[]'", "has no vLLM; run: ")):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        with pytest.raises(UserError, match=said):
            render("docker", described(engine="vllm"), tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["docker", "kubernetes", "kserve"])
def test_an_engine_that_leaves_a_gpu_idle_gets_none(target: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"target {target}: gpu: engine openvino computes on the processor"):
        render(target, described(engine="openvino"), tmp_path, {"gpu": True})


def test_a_container_has_time_to_answer_what_it_began(tmp_path: Path) -> None:
    assert STOPPING >= DRAIN_SECONDS + 10  # connections, engines
    written, _ = render("docker", described(engine="openvino"), tmp_path, {"tool": "docker"})
    target: Any = find_target("docker", written.settings, None)
    assert shown(target.down(written)) == [f"docker stop -t {STOPPING} treadle-helper  # and take it away"]
    assert f"--stop-timeout {STOPPING} " in shown(target.apply(written))[1]
    assert service_in(tmp_path)["stop_grace_period"] == f"{STOPPING}s"


def test_compose_publishes_the_port_that_was_asked_for(tmp_path: Path) -> None:
    render("docker", described(engine="openvino"), tmp_path, {"port": 9000})
    assert service_in(tmp_path)["ports"] == ["127.0.0.1:${PORT:-9000}:8000"]


def test_treadle_itself_comes_from_no_index(tmp_path: Path) -> None:
    """There its name may be anybody's. What the Dockerfile runs is run here, in an environment of its own."""
    render("docker", described(engine="openvino"), tmp_path / "out", {})
    run = (tmp_path / "out" / "Dockerfile").read_text().split("\nRUN ")[1].partition("\nRUN ")[0]
    wheels, python = tmp_path / "out" / "wheels", tmp_path / "venv" / "bin" / "python"
    venv.create(tmp_path / "venv", with_pip=False)
    pip = f"{sys.executable} -m pip --python {python}"
    # An index that answers nothing: whoever asks it fails.
    environment = {"PATH": "/usr/bin:/bin", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}

    def shell(command: str) -> subprocess.CompletedProcess[str]:
        made = command.replace("/tmp/wheels", str(wheels)).replace("pip install", f"{pip} install")
        return subprocess.run(["sh", "-c", made], capture_output=True, text=True, env=environment)

    without = shell(run)
    assert without.returncode == 1
    (pin,) = [pin for pin in lines(tmp_path / "out" / "requirements.txt") if pin.startswith("treadle==")]
    assert f"wheels/ has no wheel of {pin}; wheels/README says how it is made" in without.stderr
    assert pin in (wheels / "README").read_text()
    write_wheel(wheels, "treadle", pin.partition("==")[2])
    done = shell(f"{run} && pip install '{pin}'")
    assert done.returncode == 0, done.stderr
    assert "Dockerfile says what has to lie here first" in (tmp_path / "out" / "compose.yaml").read_text()


def write_wheel(folder: Path, name: str, version: str) -> None:
    """With nothing in it."""
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")


def test_an_image_for_processors_has_nothing_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"torch": "2.13.0", "nvidia-cublas-cu12": "12.9", "cuda-bindings": "12.9", "triton": "3.5", "httpx": "0.28"}
    monkeypatch.setattr(docker_files, "_installed", lambda *_: {n: SimpleNamespace(version=v) for n, v in here.items()})
    assert docker_files.pinned("transformers") == {"torch": "2.13.0+cpu", "httpx": "0.28"}
    assert docker_files.pinned("transformers", gpu=True) == here
