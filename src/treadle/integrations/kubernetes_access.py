"""How what runs on Kubernetes, or is played by podman from the same manifests, is reached from this machine."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.integrations.kubernetes_keys import KEY, ONE_KEY, ClientKeys
from treadle.integrations.kubernetes_pod import NAME, SECRET
from treadle.stages.deploy.call import Call, output_of
from treadle.stages.deploy.targets import Written, asked

CANARY_OF = "treadle/canary-of"  # a label of what goes when a canary ends
_KINDS = "deployment,service,horizontalpodautoscaler,poddisruptionbudget,networkpolicy"
_FORWARDING = re.compile(r"127\.0\.0\.1:([0-9]{1,5}) ->")
_PATIENCE = 30.0  # seconds until a forwarded port is there
_ENDING = 120.0  # seconds that pods of an earlier release get to end
_PAUSE = 3.0  # seconds between two questions
_NAMES = "go-template={{range $name, $value := .data}}{{$name}} {{end}}"  # in a secret; of no value
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,252}")


@dataclass(frozen=True)
class Cluster:
    """A namespace of a cluster, by kubectl. ``context`` is of its configuration; without it, the one that is current
    there."""

    namespace: str
    context: str = ""

    def checked(self, target: str) -> Cluster:
        """Itself; ``UserError`` for what would be an option."""
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", self.namespace):
            raise UserError(
                f"target {target}: namespace {self.namespace!r}: expected small letters, digits and hyphens"
            )
        if self.context and not _WORD.fullmatch(self.context):
            raise UserError(f"target {target}: kube_context {self.context!r}: expected one that kubectl config names")
        return self

    def kubectl(self, *arguments: str) -> tuple[str, ...]:
        """A command about the cluster."""
        return ("kubectl", *(("--context", self.context) if self.context else ()), *arguments)

    def within(self, *arguments: str) -> tuple[str, ...]:
        """A command about the namespace."""
        return self.kubectl("-n", self.namespace, *arguments)

    def endpoint(self, service: str) -> str:
        """What the record calls a Service."""
        place = f"{self.context}/{self.namespace}" if self.context else self.namespace
        return f"kubernetes:{place}/{service}"

    def ask(self, written: Written) -> Any:
        """Through a port of this machine that kubectl forwards to the Service for as long as it takes.

        kubectl takes the pod that has been ready for longest. After a rollout that is one of the release before for as
        long as it ends, though the Service sends it nothing any more; so it is asked again until none ends.
        """
        until = time.monotonic() + _ENDING
        forward = self.within("port-forward", "--address", "127.0.0.1", f"service/{written.slug}", ":80")
        while True:
            ending = self._ending(written.slug)
            with _forwarded(forward) as url:
                said = asked(url, written)
            right = isinstance(said, dict) and said.get("system_fingerprint") == written.release
            if right or not ending or time.monotonic() > until:
                return said
            time.sleep(_PAUSE)

    def _ending(self, name: str) -> bool:
        """Whether pods of that name are being deleted."""
        times = "jsonpath={.items[*].metadata.deletionTimestamp}"
        return bool(output_of(self.within("get", "pods", "-l", f"{NAME}={name}", "-o", times)).strip())

    def needing_key(self, keys: ClientKeys = ONE_KEY) -> Call:
        """Says that the clients' key is missing, or where their keys are, before pods wait for it."""
        said = f"look for the secret {SECRET} in the namespace {self.namespace}"
        return Call(said, partial(self._need_key, keys=keys))

    def _need_key(self, _folder: Path, keys: ClientKeys) -> None:
        try:
            shape = _NAMES if keys.shared else "name"
            found = output_of(self.within("get", "secret", SECRET, "--ignore-not-found", "-o", shape))
        except UserError:  # who may not look into secrets may still apply; what else it is, the next command says
            return
        lacking = [name for name in keys.secrets() if name not in found.split()]
        if lacking or not found.strip():
            what = f"secret {SECRET}" + (f" with {lacking[0]}" if lacking else "")
            raise UserError(
                f"kubernetes: namespace {self.namespace} has no {what}, without which no pod starts; make it:"
                f" {secret_command(self, keys.held())}"
            )

    def ending_canary(self, slug: str) -> Call:
        """Takes away what an earlier folder tried beside this release, where it did, and the route to it."""
        command = self.within("delete", f"httproute,{_KINDS}", "-l", f"{CANARY_OF}={slug}")
        return Call(f"{' '.join(command)}  # where there are any", partial(self._end_canary, slug=slug))

    def _end_canary(self, _folder: Path, slug: str) -> None:
        chosen = ("-l", f"{CANARY_OF}={slug}")
        if not output_of(self.within("get", "deployment", *chosen, "-o", "name")).strip():
            return  # and there may be no Gateway API in this cluster
        for kinds in ("httproute", _KINDS):  # nothing is sent to it any more before it goes
            output_of(self.within("delete", kinds, *chosen, "--ignore-not-found"))


def secret_command(cluster: Cluster, held: Mapping[str, str]) -> str:
    """How the secret is made, with nothing of it on a command line that others see; ``held`` are the shell's variables
    by the names that they have in it."""
    lines = "".join(f"{name}=%s\\n" for name in held)
    values = " ".join(f'"${variable}"' for variable in held.values())
    made = " ".join(cluster.within("create", "secret", "generic", SECRET))
    return f"printf '{lines}' {values} | {made} --from-env-file=/dev/stdin"


def play(folder: Path, secret: str, keys: ClientKeys = ONE_KEY) -> None:
    """Play ``deployment.yaml`` with the key of clients, or where their keys are, as a secret that goes through no file
    and no command line.

    The form in which a secret is looked up changed between podman's versions; the second is tried after the first.
    """
    data: dict[str, str] = {}
    for name, variable in {"key": KEY, **keys.held()}.items():
        if value := os.environ.get(variable):
            data[name] = base64.b64encode(value.encode()).decode()
        elif name in keys.held():
            raise UserError(f"{variable}: set it; the pod does not start without it")
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
def _forwarded(command: tuple[str, ...]) -> Iterator[str]:
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
