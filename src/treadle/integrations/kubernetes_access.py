"""How what runs on Kubernetes, or is played by podman from the same manifests, is reached from this machine."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.stages.deploy.call import output_of
from treadle.stages.deploy.targets import Written, asked

KEY = "TREADLE_API_KEY"
_FORWARDING = re.compile(r"127\.0\.0\.1:([0-9]{1,5}) ->")
_PATIENCE = 30.0  # seconds until a forwarded port is there


def ask_service(namespace: str, written: Written) -> Any:
    """Through a port of this machine that kubectl forwards to the Service for as long as it takes."""
    with _forwarded(namespace, written.slug) as url:
        return asked(url, written)


def play(folder: Path, secret: str) -> None:
    """Play ``deployment.yaml`` with the key of clients as a secret that goes through no file and no command line.

    The form in which a secret is looked up changed between podman's versions; the second is tried after the first.
    """
    key = os.environ.get(KEY)
    if not key:
        raise UserError(f"{KEY}: set the key that clients send; the pod does not start without one")
    data = {"key": base64.b64encode(key.encode()).decode()}
    whole = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "data": data}
    for form, last in ((data, False), (whole, True)):
        drop_secret(folder, secret)
        output_of(("podman", "secret", "create", secret, "-"), given=json.dumps(form))
        try:
            output_of(("podman", "play", "kube", "--replace", "deployment.yaml"), folder=folder)
        except UserError as error:
            if last or "secret" not in str(error):
                raise
        else:
            return


def drop_secret(_folder: Path, secret: str) -> None:
    """Whether it is there or not."""
    with suppress(UserError):
        output_of(("podman", "secret", "rm", secret))


@contextmanager
def _forwarded(namespace: str, service: str) -> Iterator[str]:
    command = ["kubectl", "-n", namespace, "port-forward", "--address", "127.0.0.1", f"service/{service}", ":80"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise UserError(f"kubectl: {error.strerror}; treadle doctor says what is missing") from None
    try:
        yield f"http://127.0.0.1:{_port(process)}"
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _port(process: subprocess.Popen[str]) -> int:
    """The free port that kubectl took, from its first lines."""
    assert process.stdout is not None
    until = time.monotonic() + _PATIENCE
    while (left := until - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            break
        line = process.stdout.readline()
        if found := _FORWARDING.search(line):
            return int(found[1])
        if not line:
            break
    raise UserError("kubectl port-forward: no port was forwarded; it said why above")
