"""How a container gets at its release: what is rendered of each way, what it is run with, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from described_release import described
from treadle.core.errors import UserError
from treadle.core.remote import introduce, open_remote
from treadle.core.store import Store
from treadle.core.transfer import Transfer
from treadle.integrations.docker_release import Pulled
from treadle.stages.deploy.call import Call
from treadle.stages.deploy.targets import Written, find_target, render, shown

RELEASE = described()
TAG = RELEASE.tag
BUCKET = {"model": "pulled", "remote": "s3://bucket/team"}
WAYS: dict[str, dict[str, Any]] = {
    "inside": {},
    "mounted": {"model": "mounted"},
    "bucket": BUCKET,
    "folder": {"model": "pulled", "remote": "/mnt/the team's $remote"},
}
SECRETS = {
    "AWS_ACCESS_KEY_ID": "hush-id",
    "AWS_SECRET_ACCESS_KEY": "hush-key",
    "AZURE_STORAGE_CONNECTION_STRING": "hush-connection",
    "TREADLE_ENCRYPTION_KEY": "5a" * 32,
    "TREADLE_API_KEY": "hush-clients",
}


def rendered(folder: Path, settings: dict[str, Any]) -> Written:
    return render("docker", RELEASE, folder, {"tool": "docker", **settings})[0]


def service_in(folder: Path) -> tuple[Any, Any]:
    """What Compose runs the release as, and its volumes."""
    said = yaml.safe_load((folder / "compose.yaml").read_text())
    return said["services"]["helper"], said["volumes"]


def commands(written: Written) -> list[str]:
    return shown(find_target("docker", written.settings, None).apply(written))


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
def test_every_way_verifies_and_has_no_secret(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    written = rendered(tmp_path, settings)
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"    TREADLE_RELEASE_DIGEST={RELEASE.digest} \\\n" in (tmp_path / "Dockerfile").read_text()
    assert service_in(tmp_path)[0]["read_only"] is True
    *_, build, run = commands(written)
    assert build.startswith("docker build ")
    assert " --read-only " in run
    everything = "\n".join([*commands(written), *(path.read_text() for path in tmp_path.rglob("*") if path.is_file())])
    assert not any(value in everything for value in SECRETS.values())


def test_the_release_inside(tmp_path: Path) -> None:
    written = rendered(tmp_path, {})
    assert "\nCOPY release/ /release/\n" in (tmp_path / "Dockerfile").read_text()
    assert "!release" in (tmp_path / ".dockerignore").read_text().splitlines()
    assert service_in(tmp_path)[0]["volumes"] == ["journal:/journal"]
    assert find_target("docker", written.settings, None).apply(written).release == "release"
    assert len(commands(written)) == 2


def test_the_release_mounted(tmp_path: Path) -> None:
    written = rendered(tmp_path, WAYS["mounted"])
    text, where = (tmp_path / "Dockerfile").read_text(), f"releases/{TAG}"
    assert "/release/\n" not in text
    assert "TREADLE_RELEASE_FOLDER=/release " in text
    assert f"--out {where};" in text
    assert not any("release" in line for line in (tmp_path / ".dockerignore").read_text().splitlines())
    assert "/releases/" in (tmp_path / ".gitignore").read_text().splitlines()
    service, volumes = service_in(tmp_path)
    assert service["volumes"][1] == {
        "type": "bind",
        "source": f"./{where}",
        "target": "/release",
        "read_only": True,
        "bind": {"create_host_path": False},
    }
    assert volumes == {"journal": None}
    plan = find_target("docker", written.settings, None).apply(written)
    assert plan.release == where
    readable, _, run = commands(written)
    assert readable == f"chmod -R a+rX {where}"
    assert f"--mount type=bind,source=./{where},target=/release,readonly" in run


def test_what_runs_is_given_the_whole_path(tmp_path: Path) -> None:
    """A program that notes what it was asked, in the place of docker."""
    note = tmp_path / "bin" / "docker"
    note.parent.mkdir()
    note.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexit 1\n')
    note.chmod(0o755)
    for name, readable in (("plain", True), ("a,b", False), ("a:b", False)):
        folder = tmp_path / name
        written = rendered(folder, WAYS["mounted"])
        started = find_target("docker", written.settings, None).apply(written).commands[-1]
        assert isinstance(started, Call)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{note.parent}:/usr/bin:/bin")
            with pytest.raises(UserError, match=r"docker run|is not mounted"):
                started.make(folder)
        asked = (tmp_path / "asked").read_text()
        assert (f"source={folder}/releases/{TAG},target=/release,readonly" in asked) is readable


def test_the_release_pulled_from_a_bucket(tmp_path: Path) -> None:
    written = rendered(tmp_path, BUCKET)
    text = (tmp_path / "Dockerfile").read_text()
    assert f"TREADLE_RELEASE_FOLDER=/releases/{TAG} " in text
    assert "TREADLE_RELEASE_REMOTE=s3://bucket/team " in text
    assert "COPY release" not in text
    assert "\nVOLUME /journal /releases\n" in text
    assert "s3fs" in {pin.partition("==")[0] for pin in (tmp_path / "requirements.txt").read_text().splitlines()}
    service, volumes = service_in(tmp_path)
    assert service["volumes"] == ["journal:/journal", "releases:/releases"]
    assert volumes == {"journal": None, "releases": None}
    handed = [name for name, value in service["environment"].items() if value is None]
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TREADLE_ENCRYPTION_KEY"} <= set(handed)
    assert find_target("docker", written.settings, None).apply(written).release == ""
    _, run = commands(written)
    assert "--volume treadle-helper-releases:/releases " in run
    assert all(f"--env {name} " in run for name in handed)


def test_the_release_pulled_from_a_folder(tmp_path: Path) -> None:
    written = rendered(tmp_path, WAYS["folder"])
    text = (tmp_path / "Dockerfile").read_text()
    assert "TREADLE_RELEASE_REMOTE=/remote " in text
    assert "the team" not in text
    assert "s3fs" not in (tmp_path / "requirements.txt").read_text()
    service, _ = service_in(tmp_path)
    assert service["volumes"][2]["source"] == "/mnt/the team's $$remote"  # as Compose reads it
    assert "AWS_ACCESS_KEY_ID" not in service["environment"]
    look, _, run = commands(written)
    assert look == f"look whether /mnt/the team's $remote has release {RELEASE.digest[:11]}"
    assert "type=bind,source=/mnt/the team'\"'\"'s $remote,target=/remote,readonly" in run


def test_it_is_looked_whether_a_folder_has_the_release(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = store.new_folder()
    (folder / "release.json").write_text("{}")
    digest = store.put(folder)
    remote, mounted = tmp_path / "remote", tmp_path / "other"
    written = Written("docker", digest, "helper@v3", "helper", "b3-1", "chat", {}, {})

    def look(place: Path) -> None:
        (call,) = Pulled(str(place)).before(written)
        assert isinstance(call, Call)
        call.make(tmp_path)

    with pytest.raises(UserError, match="there is no remote at"):
        look(remote)
    introduce(open_remote(str(remote), tmp_path), writing=True)
    with pytest.raises(UserError, match=f"has no release {digest}; treadle push"):
        look(remote)
    with Transfer(store, open_remote(str(remote), tmp_path)) as transfer:
        transfer.send([digest])
    look(remote)
    mounted.mkdir()
    (mounted / "format").write_text("1\n")
    with pytest.raises(UserError, match="is a project's own store, with its keys"):
        look(mounted)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "carried"}, "target docker: model: input should be 'inside', 'mounted' or 'pulled'"),
        ({"model": "pulled"}, "remote is missing"),
        ({"remote": "s3://bucket/team"}, "nothing is pulled with model=inside"),
        ({"model": "mounted", "remote": "s3://bucket/team"}, "nothing is pulled with model=mounted"),
        ({"model": "pulled", "remote": "s3://id:hush@bucket/team"}, "the address holds a secret"),
        ({"model": "pulled", "remote": "https://example.org/team"}, "no remote called 'https'"),
        ({"model": "pulled", "remote": "s3://bucket/a b"}, "expected an address such as s3://bucket/team"),
        ({"model": "pulled", "remote": "s3://bucket/$HOME"}, "expected an address such as"),
        ({"model": "pulled", "remote": "s3://bucket/a\nRUN rm"}, "expected an address such as"),
        ({"model": "pulled", "remote": "team"}, "the whole path of a folder"),
        ({"model": "pulled", "remote": "/mnt/a,readonly=false"}, "the whole path of a folder"),
        ({"model": "pulled", "remote": "/mnt/a:b"}, "the whole path of a folder"),
        ({"model": "pulled", "remote": "gs://bucket/team"}, "gcsfs is not installed here; run: pip install"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    if "gcsfs" in said:
        import importlib.util

        if importlib.util.find_spec("gcsfs"):
            pytest.skip("gcsfs is installed here")
    with pytest.raises(UserError, match=said):
        rendered(tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()
