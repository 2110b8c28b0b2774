"""The target ``docker``: an image with the release in it, or beside it, and a compose file that watches it.

The base image is named by its tag, for no registry is asked here; pin it by digest before it goes to production.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from treadle.core.errors import UserError
from treadle.integrations.docker_files import VLLM, beside, bill, check_gpu, pinned, requirements
from treadle.integrations.docker_release import Model, way
from treadle.integrations.docker_running import STOPPING, Container
from treadle.integrations.grafana import dashboard
from treadle.stages.deploy.call import Call
from treadle.stages.deploy.carried_keys import DEGRADE, VARIABLE
from treadle.stages.deploy.targets import Plan, Rendering, Written, check_image, check_port

_PYTHON = f"docker.io/library/python:{sys.version_info[0]}.{sys.version_info[1]}-slim"
BASE = f"{_PYTHON}-bookworm"
_VLLM_BASE = f"{_PYTHON}-trixie"  # vLLM's builds for processors ask for a newer C library than bookworm's
PORT, USER = 8000, 10001
_TOOLS = ("docker", "podman")
_HERE = Path()  # the rendered folder, for whoever works in it
_DOCKERFILE = """\
# {model}, release {digest}. Written by `treadle render docker`.
# {said} before any index; with --build-arg PIP_NO_INDEX=1 it takes those alone.
# Treadle's own has to lie there, for no index is asked for it; wheels/README says how it is made.
FROM {base}
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=passive
ARG PIP_NO_INDEX
COPY requirements.txt /tmp/requirements.txt
COPY wheels/ /tmp/wheels/
RUN pip install --no-cache-dir --no-index --no-deps --find-links /tmp/wheels {own} \\
 || {{ echo "wheels/ has no wheel of {own}; wheels/README says how it is made" >&2; exit 1; }}
{apart}RUN pip install --no-cache-dir --find-links /tmp/wheels -r /tmp/requirements.txt \\
 && rm -rf /tmp/wheels \\
 && useradd --uid {user} --no-create-home --shell /usr/sbin/nologin treadle \\
 && install -d -o {user} -g {user} {folders}
{copied}COPY sbom.cdx.json /usr/share/doc/treadle/sbom.cdx.json
ENV {found}    TREADLE_RELEASE_DIGEST={digest} \\
    TREADLE_RELEASE_NAME={model} \\
    TREADLE_JOURNAL=/journal
USER {user}:{user}
VOLUME {folders}
EXPOSE {port}
HEALTHCHECK --interval=15s --timeout=5s --start-period={patience}s CMD ["python3", "-c", \
"import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/health/ready', timeout=4)"]
ENTRYPOINT ["treadle"]
CMD ["serve", "--host", "0.0.0.0", "--port", "{port}"]
"""
_APART = """\
# vLLM pins a torch of its own, so it has an environment of its own; it, and what it asks to compile, write to /tmp.
COPY vllm.txt /tmp/vllm.txt
RUN apt-get update \\
 && apt-get install --yes --no-install-recommends g++ libnuma1 \\
 && rm -rf /var/lib/apt/lists/* \\
 && python3 -m venv --without-pip /opt/vllm \\
 && pip --python /opt/vllm/bin/python install --no-cache-dir --find-links /tmp/wheels -r /tmp/vllm.txt
ENV TREADLE_VLLM_PYTHON=/opt/vllm/bin/python HOME=/tmp
"""
# As vLLM's documentation has it, for its builds for Intel's and AMD's processors.
_OPENMP = "ENV LD_PRELOAD=/opt/vllm/lib/libiomp5.so\n"
_COMPOSE = """\
# Written by `treadle render docker`. Dockerfile says what has to lie here first. Then set {asked}, and:
# docker compose up
services:
  {slug}:
    image: {image}
    build: .
    environment:
{one}{variables}{shared}    ports: ["127.0.0.1:${{PORT:-{published}}}:{port}"]
    volumes: ["journal:/journal"{mounts}]
    read_only: true
    tmpfs: ["{tmp}"]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    stop_grace_period: {stopping}s
    restart: unless-stopped
{device}  prometheus:
    image: docker.io/prom/prometheus:v3.5.0
    command: [--config.file=/etc/prometheus/prometheus.yml]
    configs:
      - {{source: scrape, target: /etc/prometheus/prometheus.yml}}
    depends_on: [{slug}]
  grafana:
    image: docker.io/grafana/grafana:12.1.0
    ports: ["127.0.0.1:${{GRAFANA_PORT:-3000}}:3000"]
    volumes:
      - ./grafana/datasource.yaml:/etc/grafana/provisioning/datasources/treadle.yaml:ro
      - ./grafana/dashboards.yaml:/etc/grafana/provisioning/dashboards/treadle.yaml:ro
      - ./grafana/treadle.json:/var/lib/grafana/dashboards/treadle.json:ro
    depends_on: [prometheus]
configs:
  scrape:
    content: |
      global: {{scrape_interval: 15s}}
      scrape_configs:
        - job_name: treadle
          authorization: {{credentials: "${{{scraping}}}"}}
          static_configs: [{{targets: ["{slug}:{port}"]}}]
volumes:
  journal:
{volumes}"""
_WHEELS = """\
Wheels that lie here are taken before any index. Treadle's own has to be among them, {own}:
pip wheel --no-deps --wheel-dir wheels FOLDER_OF_TREADLE
"""
_METRICS = "TREADLE_METRICS_KEY"
_ONE = """\
      TREADLE_API_KEY: ${TREADLE_API_KEY:?set a key that clients send}
"""
_SHARED = f"""\
      TREADLE_API_KEY: ${{TREADLE_API_KEY:-}}
      {VARIABLE}: ${{{VARIABLE}:?set the URL of the project's database}}
      {DEGRADE}: ${{{DEGRADE}:-}}
"""
_DEVICE = """\
    deploy:
      resources:
        reservations:
          devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]
"""
_DATASOURCE = """\
apiVersion: 1
datasources:
  - name: Prometheus
    uid: prometheus
    type: prometheus
    url: "http://prometheus:9090"
    isDefault: true
    jsonData: {timeInterval: 15s}
"""
_DASHBOARDS = """\
apiVersion: 1
providers:
  - {name: treadle, type: file, options: {path: /var/lib/grafana/dashboards}}
"""


class Docker:
    """An image with the release inside, mounted or pulled, by docker or podman; Prometheus and Grafana beside it."""

    def __init__(
        self,
        *,
        tool: str = "",
        base: str = "",
        port: int = PORT,
        wheels_only: bool = False,
        gpu: bool = False,
        keys: str = "",
        model: Model = "inside",
        remote: str = "",
    ) -> None:
        """``base``: another image with Python and pip; ``port`` on this machine; ``wheels_only`` asks no index.
        ``gpu``: packages built for NVIDIA's GPUs, and one of those for the container. ``keys``: ``postgresql`` for an
        image that takes them from the project's database. ``model``: inside the image, mounted from a folder of this
        machine, or pulled from a ``remote`` of `treadle push`."""
        if tool not in ("", *_TOOLS):  # a rendered folder says it, and it is run
            raise UserError(f"target docker: tool {tool!r}: expected {' or '.join(_TOOLS)}")
        self.tool = tool or ("podman" if shutil.which("docker") is None and shutil.which("podman") else "docker")
        self._base, self._port, self._wheels_only, self._gpu = base, port, wheels_only, gpu
        check_port("docker", port)
        check_image("docker", base, "base")
        if keys not in ("", "postgresql"):
            raise UserError(f"target docker: keys {keys!r}: expected postgresql")
        self._shared = bool(keys)
        self._way = way(model, remote)

    def render(self, release: Rendering) -> Mapping[str, bytes]:
        """As `Target.render`."""
        check_gpu("docker", release.engine, gpu=self._gpu)
        packages = pinned(release.engine, gpu=self._gpu, postgres=self._shared, scheme=self._way.scheme)
        apart, ours = beside(release.engine, gpu=self._gpu), self._way
        named = {
            "digest": release.digest,
            "model": release.model,
            "slug": release.slug,
            "image": image(release.slug, release.tag),
            "base": self._base or (_VLLM_BASE if apart else BASE),
            "user": USER,
            "port": PORT,
            "published": self._port,
            "own": f"treadle=={packages['treadle']}",
            "said": ours.said(release.digest, release.tag),
            "folders": ours.folders,
            "copied": ours.copied(),
            "found": ours.found(release.tag),
            "patience": ours.patience,
            **ours.compose(release.tag),
            "apart": (_APART + (_OPENMP if "intel-openmp" in apart else "")) if apart else "",
            "tmp": _tmp(release.engine),
            "stopping": STOPPING,
            "device": _DEVICE if self._gpu else "",
            "one": "" if self._shared else _ONE,
            "shared": _SHARED if self._shared else "",
            "asked": f"{VARIABLE} and {_METRICS}" if self._shared else "TREADLE_API_KEY",
            "scraping": f"{_METRICS}:?set a key whose scope is metrics" if self._shared else "TREADLE_API_KEY",
        }
        lists = {"requirements.txt": packages, **({"vllm.txt": apart} if apart else {})}
        place = ours.place(release.tag)
        copied = (*lists, "wheels", *((place,) if ours.copied() else ()), "sbom.cdx.json")
        return {
            "Dockerfile": _DOCKERFILE.format(**named).encode(),
            ".dockerignore": "".join(["*\n", *(f"!{each}\n" for each in copied)]).encode(),
            ".gitignore": (f"/{place.partition('/')[0]}/\n" if place else "").encode() + b"/wheels/*.whl\n",
            **{name: requirements(each, gpu=self._gpu) for name, each in lists.items()},
            "sbom.cdx.json": bill(release, [*packages.items(), *apart.items()]),
            "wheels/README": _WHEELS.format(**named).encode(),
            "compose.yaml": _COMPOSE.format(**named).encode(),
            "grafana/datasource.yaml": _DATASOURCE.encode(),
            "grafana/dashboards.yaml": _DASHBOARDS.encode(),
            "grafana/treadle.json": dashboard(release.spec.name),
        }

    def apply(self, written: Written) -> Plan:
        """As `Target.apply`."""
        tag = image(written.slug, written.tag)
        alone = ["--build-arg", "PIP_NO_INDEX=1"] if self._wheels_only else []
        form = ["--format", "docker"] if self.tool == "podman" else []  # OCI images have no health check
        build = (self.tool, "build", *form, *alone, "--tag", tag, ".")
        started = Call(
            f"{self._container(written).shown()}  # in the place of the one that runs, once it was tried beside it",
            lambda folder: self._container(written, folder).start(written),
        )
        return Plan(
            (*self._way.before(written), build, started),
            endpoint=f"http://127.0.0.1:{self._port}",
            release=self._way.place(written.tag),
        )

    def down(self, written: Written) -> Plan:
        """As `Target.down`, once what is in flight was answered; the volume with the interactions stays."""
        ours = self._container(written)
        ended = Call(f"{ours.stopped()}  # and take it away", lambda _: ours.end())
        return Plan((ended,), f"http://127.0.0.1:{self._port}")

    def _container(self, written: Written, folder: Path = _HERE) -> Container:
        """Everything that an image is run with. How it was rendered says which engine it has; ``folder`` is where."""
        engine = VLLM if "vllm.txt" in written.files else ""
        options = ["--env", "TREADLE_API_KEY", "--read-only", "--tmpfs", _tmp(engine), "--cap-drop", "ALL"]
        options += ["--stop-timeout", str(STOPPING)]
        options += ["--env", VARIABLE, "--env", DEGRADE] if self._shared else []
        options += self._way.options(written, folder)
        if self._gpu:
            options += ["--device", "nvidia.com/gpu=all"] if self.tool == "podman" else ["--gpus", "all"]
        return Container(
            tool=self.tool,
            name=f"treadle-{written.slug}",
            image=image(written.slug, written.tag),
            options=tuple(options),
            port=self._port,
            inside=PORT,
            beside=not self._gpu,
            seconds=self._way.seconds,
        )


def _tmp(engine: str) -> str:
    """The folder that may be written to; what vLLM compiles there is also run."""
    return "/tmp:exec" if engine == VLLM else "/tmp"  # noqa: S108


def image(slug: str, tag: str) -> str:
    """The name of the image of exactly one release."""
    return f"localhost/treadle-{slug}:{tag}"
