"""Rendering a release for every target: the same bytes again, nothing edited is lost, and the targets' tools agree."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import debian
import given_away
import target_results
from described_release import described
from treadle.core.digest import blake3_bytes
from treadle.core.errors import UserError
from treadle.core.plugins import names
from treadle.serve.contracts.asking import outputs_of
from treadle.stages.deploy.targets import GROUP, Rendering, Written, find_target, render, shown

RELEASE = described("Docs_Assistant")

# TensorFlow has an environment of its own, which `make test` does not make.
TARGETS = [
    pytest.param(name, marks=pytest.mark.slow) if name == "tensorflow-serving" else name for name in names(GROUP)
]
# Settings that a target does not do without.
NEEDED: dict[str, dict[str, Any]] = {
    "sagemaker": {
        "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/assistant:3",
        "role": "arn:aws:iam::123456789012:role/serving",
    },
    "vertex": {
        "image": "europe-west4-docker.pkg.dev/models/helper/assistant:3",
        "project": "models-1",
        "region": "europe-west4",
    },
}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Rendering:
    """A release whose model is there to be given away."""
    return given_away.release_of(tmp_path_factory.mktemp("classifier"), given_away.write_classifier)


@pytest.fixture
def release(target: str, request: pytest.FixtureRequest) -> Rendering:
    """What the target is tried on."""
    if target not in given_away.TARGETS:
        return RELEASE
    given_away.need(target)
    found: Rendering = request.getfixturevalue("classifier")
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_rendering_again_changes_nothing(target: str, release: Rendering, tmp_path: Path) -> None:
    settings = NEEDED.get(target, {})
    written, changed = render(target, release, tmp_path / "a", settings)
    assert set(changed) == {*written.files, "treadle.json"}
    assert all(release.digest in (tmp_path / "a" / "treadle.json").read_text() for _ in changed)
    assert render(target, release, tmp_path / "a", settings)[1] == []
    render(target, release, tmp_path / "b", settings)
    for path in changed:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path
    newer = replace(release, digest="b3:" + "cd" * 32)
    assert "treadle.json" in render(target, newer, tmp_path / "a", settings)[1]
    made = find_target(target, settings, None)
    if target in given_away.TARGETS:
        with pytest.raises(UserError, match=rf"apply {target}: nothing of it is deployed from here; in its folder, "):
            made.apply(written)
        return
    assert shown(made.apply(written))
    assert shown(made.down(written))


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_edited_is_not_overwritten(target: str, release: Rendering, tmp_path: Path) -> None:
    settings = NEEDED.get(target, {})
    written, _ = render(target, release, tmp_path, settings)
    edited = tmp_path / max(written.files)
    edited.write_text(edited.read_text() + "# mine\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="was edited"):
        render(target, replace(release, digest="b3:" + "cd" * 32, model="other@v9", bytes=9), tmp_path, settings)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tool '/tmp/other': expected docker or podman"):
        find_target("docker", {"tool": "/tmp/other"}, None)
    with pytest.raises(UserError, match="no setting 'replica'"):
        render("kubernetes", RELEASE, tmp_path, {"replica": 3})
    for target, settings, said in (
        ("docker", {"port": 0}, "port 0: expected a number from 1 to 65535"),
        ("systemd", {"port": 99999}, "port 99999"),
        ("triton", {"port": -1}, "port -1"),
        ("rayserve", {"port": 65536}, "port 65536"),
        ("kubernetes", {"port": 0}, "port 0"),
        ("docker", {"base": "foo bar"}, "base 'foo bar': expected an image's name"),
        ("kubernetes", {"image": "a b"}, "image 'a b': expected an image's name"),
        ("kserve", {"image": "--x"}, "image '--x'"),
        ("rayserve", {"image": "a\nb"}, "image "),
        ("rayserve", {"namespace": "Bad_NS"}, "namespace 'Bad_NS': expected small letters, digits and hyphens"),
        ("rayserve", {"cpus": -3}, "cpus -3: expected 1 or more"),
    ):
        with pytest.raises(UserError, match=said):
            render(target, RELEASE, tmp_path, settings)
    with pytest.raises(UserError, match="no target called 'dockr'"):
        render("dockr", RELEASE, tmp_path, {})
    with pytest.raises(UserError, match="plain absolute path"):
        render("systemd", RELEASE, tmp_path, {"home": "opt; rm"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("image", "is_one"),
    [
        ("python:3.11", True),
        ("localhost/treadle-helper:b3-0123456789abcdef", True),
        ("Registry.example:5000/team/a__b/c.d-e:V1.0_x", True),
        ("[::1]:5000/helper@sha256:" + "0f" * 32, True),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/helper:3@sha256:" + "0f" * 32, True),
        ("${REGISTRY}/helper@$DIGEST", True),
        ("UPPER:bad:tag", False),
        ("registry.example/Helper:3", False),
        ("registry.example/helper:", False),
        ("registry.example/helper:-3", False),
        ("registry.example//helper", False),
        ("registry.example/helper@sha256:12", False),
        ("https://registry.example/helper", False),
        ("helper:" + "v" * 129, False),
    ],
)
def test_an_image_has_a_name_of_one(image: str, is_one: bool) -> None:
    for target in ("kubernetes", "kserve", "rayserve", "sagemaker", "vertex"):
        settings = {**NEEDED.get(target, {}), "image": image}
        if is_one:
            find_target(target, settings, None)
            continue
        with pytest.raises(UserError, match=r"image '.*': expected an image's name, in small letters, such as"):
            find_target(target, settings, None)


def test_a_folder_is_of_one_target(tmp_path: Path) -> None:
    """Or the files by which the other is taken down are gone."""
    render("kubernetes", RELEASE, tmp_path, {})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"holds what treadle render kubernetes wrote.*name another folder with --out"):
        render("docker", RELEASE, tmp_path, {})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_image(tmp_path: Path) -> None:
    render("docker", RELEASE, tmp_path, {})
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "Dockerfile").read_text()
    assert "USER 10001:10001" in text
    compose = yaml.safe_load((tmp_path / "compose.yaml").read_text())
    assert compose["services"]["docs-assistant"]["read_only"] is True
    pins = (tmp_path / "requirements.txt").read_text().splitlines()
    assert all(pin.count("==") == 1 for pin in pins)
    assert {"treadle", "openvino-genai", "starlette"} <= {pin.partition("==")[0] for pin in pins}
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert len(bill["components"]) == len(pins)
    assert bill["metadata"]["component"]["bom-ref"] == RELEASE.digest


def test_the_kustomize_base(tmp_path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    render("kubernetes", RELEASE, tmp_path, {"namespace": "models"})
    for path in sorted(tmp_path.glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        if document["kind"] != "Kustomization":
            validate(document, "1.31", strict=True)
            assert document["metadata"]["namespace"] == "models"
    assert "keys of `treadle keys`, with their budgets and rates," in (tmp_path / "kustomization.yaml").read_text()
    pod = yaml.safe_load((tmp_path / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "941Mi"}  # half as much again as was measured
    done = subprocess.run([debian.kubectl(), "kustomize", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(yaml.safe_load_all(done.stdout))) == 5


def test_the_unit(tmp_path: Path) -> None:
    render("systemd", RELEASE, tmp_path, {})
    unit = tmp_path / "treadle-docs-assistant.service"
    done = subprocess.run(
        [debian.program("systemd", "systemd-analyze"), "verify", unit], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    target_results.keep("systemd", validated="systemd-analyze verify")


def test_the_inference_service(tmp_path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    render("kserve", RELEASE, tmp_path, {"namespace": "models"})
    service = yaml.safe_load((tmp_path / "inferenceservice.yaml").read_text())
    predictor = service["spec"]["predictor"]
    assert (predictor.pop("minReplicas"), predictor.pop("maxReplicas")) == (1, 10)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": predictor}
    validate(pod, "1.31", strict=True)
    assert predictor["containers"][0]["name"] == "kserve-container"
    target_results.keep("kserve", validated="kubernetes-validate: its pod")


def test_knative_takes_the_container_of_the_inference_service(tmp_path: Path) -> None:
    """Its webhook refuses fields and names that Kubernetes takes: ContainerMask and validPortNames there."""
    render("kserve", RELEASE, tmp_path, {})
    (container,) = yaml.safe_load((tmp_path / "inferenceservice.yaml").read_text())["spec"]["predictor"]["containers"]
    assert container["ports"] == [{"name": "http1", "containerPort": 8000}]
    refused = {"lifecycle", "stdin", "stdinOnce", "tty", "volumeDevices"}
    assert not refused & set(container)
    render("kubernetes", RELEASE, tmp_path / "plain", {})
    pod = yaml.safe_load((tmp_path / "plain" / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    assert pod["containers"][0]["ports"] == [{"name": "http", "containerPort": 8000}]
    assert pod["containers"][0]["lifecycle"]["preStop"]


def test_the_application_of_ray_serve(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs ray")
    render("rayserve", RELEASE, tmp_path, {"port": 8123, "most": 6})
    here = yaml.safe_load((tmp_path / "serve.yaml").read_text())
    service = yaml.safe_load((tmp_path / "rayservice.yaml").read_text())
    inside = yaml.safe_load(service["spec"]["serveConfigV2"])
    # In a process of its own: once it is imported, nothing keeps a cluster of this process to this machine.
    reading = (
        "import json, sys; from ray.serve.schema import ServeDeploySchema as S;"
        "print(json.dumps([S.model_validate(each).model_dump(mode='json') for each in json.load(sys.stdin)]))"
    )
    said = subprocess.run(
        [sys.executable, "-c", reading], input=json.dumps([here, inside]), capture_output=True, text=True, check=True
    )
    for read, host in zip(json.loads(said.stdout.splitlines()[-1]), ("127.0.0.1", "0.0.0.0"), strict=True):
        assert read["http_options"]["host"] == host
        (application,) = read["applications"]
        assert application["args"]["digest"] == RELEASE.digest
        assert application["args"]["host"] == host
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--ignore", "DL3008", tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for settings in ({"address": "localhost"}, {"replicas": 3, "most": 2}, {"home": "opt"}):
        with pytest.raises(UserError, match="target rayserve: "):
            find_target("rayserve", settings, None)


def test_the_pods_of_the_ray_service(tmp_path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    render("rayserve", RELEASE, tmp_path, {"namespace": "models"})
    service = yaml.safe_load((tmp_path / "rayservice.yaml").read_text())
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        validate(pod, "1.31", strict=True)
    definition = os.environ.get("TREADLE_RAYSERVICE_CRD")  # ray-operator/config/crd/bases/ray.io_rayservices.yaml
    if definition:
        jsonschema = pytest.importorskip("jsonschema")
        versions = yaml.safe_load(Path(definition).read_text())["spec"]["versions"]
        (schema,) = [each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1"]
        jsonschema.Draft202012Validator(closed(schema)).validate(service)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(closed(schema)).validate(service | {"spec": {"serveConfigV3": ""}})


def test_the_ray_service_runs_the_image_that_has_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray")

    def images(settings: dict[str, Any]) -> tuple[str, str]:
        """Of the pods, and the one it is made of."""
        render("rayserve", RELEASE, tmp_path, settings)
        text, dockerfile = ((tmp_path / name).read_text() for name in ("rayservice.yaml", "Dockerfile"))
        cluster = yaml.safe_load(text)["spec"]["rayClusterConfig"]
        groups = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
        (named,) = {each["template"]["spec"]["containers"][0]["image"] for each in groups}
        assert f"# Needs: {named}, which Dockerfile makes" in text
        assert f"# docker build --tag {named} .\n" in dockerfile
        return named, dockerfile.partition("RELEASE_IMAGE=")[2].split()[0]

    named, base = images({})
    assert named == f"{base}-ray"
    assert images({"image": "registry.example/ray:3"}) == ("registry.example/ray:3", base)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of a resource that knows no other fields, as `kubectl apply` takes it; metadata has its own."""
    made = dict(schema)
    if isinstance(made.get("properties"), dict):
        made["properties"] = {name: closed(each) for name, each in made["properties"].items()}
        made.setdefault("additionalProperties", False)
    if isinstance(made.get("items"), dict):
        made["items"] = closed(made["items"])
    return made


@pytest.mark.parametrize("asking", ["chat", "extract", "classify", "tag", "embed"])
def test_the_model_repository(asking: str, tmp_path: Path) -> None:
    # Not by the package's own name, which imports gRPC.
    client = importlib.util.find_spec("tritonclient")
    if client is None or not client.submodule_search_locations:
        pytest.skip("needs tritonclient")
    schema = Path(client.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    found = importlib.util.spec_from_file_location("triton_model_config", schema)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    text_format = pytest.importorskip("google.protobuf.text_format")
    release = described("Docs_Assistant", asking=asking)
    render("triton", release, tmp_path, {"python": "/opt/treadle/bin/python", "environment": "/opt/triton"})
    folder = tmp_path / "models" / "Docs_Assistant"
    config: Any = text_format.Parse((folder / "config.pbtxt").read_text(), module.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("Docs_Assistant", "python", 0)
    assert list(config.version_policy.specific.versions) == [3]
    given = {key: value.string_value for key, value in config.parameters.items()}
    assert given == {"release": RELEASE.digest, "model": RELEASE.model, "python": "/opt/treadle/bin/python"}
    required = [each.name for each in config.input if not each.optional]
    assert required == (["question"] if asking == "extract" else ["text"])
    assert [each.name for each in config.output] == [*outputs_of(asking), "release", "interaction"]
    assert (folder / "3" / "model.py").is_file()
    for script in ("start.sh", "stop.sh"):
        subprocess.run(["sh", "-n", tmp_path / script], check=True)
    for settings in ({"environment": "triton"}, {"python": "/opt/a b"}):
        with pytest.raises(UserError, match="target triton: "):
            find_target("triton", settings, None)


def test_without_triton_it_says_where_to_get_it(tmp_path: Path) -> None:
    for settings, said in (({}, "no tritonserver here"), ({"environment": str(tmp_path)}, "nvidia-pytriton")):
        out = tmp_path / str(len(settings))
        render("triton", RELEASE, out, settings)
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name in ("sh", "dirname", "grep", "cat", "seq"):
            there = tmp_path / "bin" / name
            if not there.exists():
                there.symlink_to(shutil.which(name) or name)
        (tmp_path / "bin" / "python3").unlink(missing_ok=True)
        (tmp_path / "bin" / "python3").symlink_to(sys.executable)
        done = subprocess.run(
            ["sh", "start.sh"], cwd=out, capture_output=True, text=True, env={"PATH": str(tmp_path / "bin")}
        )
        assert done.returncode == 1
        assert said in done.stderr
        assert not (out / "triton.pid").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"slug": "../../etc/cron.d/x"},
        {"slug": "--privileged"},
        {"tag": "a/../../b"},
        {"model": "a b\nc"},
        {"release": "b3:../../x"},
        {"files": {"../victim": "b3:" + "00" * 32}},
        {"files": {"/etc/passwd": "b3:" + "00" * 32}},
        {"files": {"a//b": "b3:" + "00" * 32}},
        {"settings": "abc"},
        {"asking": 5},
    ],
    ids=str,
)
def test_a_folder_of_somebody_elses_names_nothing_outside(tmp_path: Path, wrong: dict[str, object]) -> None:
    render("systemd", RELEASE, tmp_path, {})
    path = tmp_path / "treadle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    with pytest.raises(UserError, match="is not what treadle render wrote"):
        Written.read(tmp_path)


def test_what_was_rendered_before_is_removed_in_the_folder_alone(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = tmp_path / "out"
    render("systemd", RELEASE, out, {})
    path = out / "treadle.json"
    said = json.loads(path.read_text())
    said["files"]["../victim"] = blake3_bytes(b"mine")
    path.write_text(json.dumps(said))
    with pytest.raises(UserError, match="is not what treadle render wrote"):
        render("systemd", RELEASE, out, {})
    assert victim.read_text() == "mine"


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    out.mkdir()
    (out / "grafana").symlink_to(elsewhere)
    with pytest.raises(UserError, match="by a link"):
        render("docker", RELEASE, out, {})
    assert not list(elsewhere.iterdir())
    (out / "grafana").unlink()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (out / ".Dockerfile.new").symlink_to(victim)
    render("docker", RELEASE, out, {})
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    ("python", "homes"), [("/opt/treadle/bin/python", "yes"), ("/home/me/bin/python", "read-only")]
)
def test_a_unit_sees_its_interpreter(python: str, homes: str, tmp_path: Path) -> None:
    render("systemd", RELEASE, tmp_path, {"python": python})
    (unit,) = tmp_path.glob("*.service")
    assert f"\nProtectHome={homes}\n" in unit.read_text()
