"""Shards on Ray: a cluster of this machine's own by default, listening on 127.0.0.1 alone and behind a token; or yours.

The shards, their order and so the digest are those of the other executors. Ray runs a shard again where a worker died.
Not covered: Treadle and the project's own code must already be on a cluster's machines, at the same paths.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from treadle.core.errors import MissingExtra, TreadleError, UserError
from treadle.core.executors import processors

S = TypeVar("S")
R = TypeVar("R")

_STORE = 64 << 20  # bytes of shared memory for each worker; Ray asks for 80 MB at least, and spills what does not fit
_LEAST_STORE = 128 << 20
# What Ray reads when it is imported: nothing is reported, and a cluster of our own listens on the loopback only.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}


class RayExecutor:
    """Ray: a cluster on this machine, one worker per processor by default, or the one at ``address``."""

    name = "ray"

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        """``workers``: most shards at work at a time. ``UserError`` for fewer than one."""
        if workers is not None and workers < 1:
            raise UserError(f"ray: expected workers of 1 or more, not {workers}")
        self._asked, self._address = workers, address
        self.workers = workers or processors()
        self._folder: str | None = None
        self._ours = False
        self._before: Any = None

    def map(self, function: Callable[[S], R], shards: Iterable[S]) -> Iterator[R]:
        """Two shards wait for each worker, the others to be taken. ``TreadleError`` when workers die again and again;
        ``MissingExtra`` without Ray.
        """
        ray = self._started()
        remote = ray.remote(num_cpus=1)(_call)
        shared = ray.put(function)
        waiting: deque[Any] = deque()
        try:
            for shard in shards:
                waiting.append(remote.remote(shared, shard))
                if len(waiting) > 2 * self.workers:
                    yield _result(ray, waiting.popleft())
            while waiting:
                yield _result(ray, waiting.popleft())
        finally:
            if ray.is_initialized():
                for reference in waiting:
                    ray.cancel(reference)

    def begin(self) -> None:
        """Start the cluster now, in the main thread, for ``map`` in another. Errors as ``map``."""
        self._started()

    def close(self) -> None:
        """End the cluster if it was started here, and take away its files."""
        ray = sys.modules.get("ray")
        if ray is not None and self._ours:
            ray.shutdown()
            if self._before is not None and _in_main_thread():
                signal.signal(signal.SIGTERM, self._before)
        self._ours = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _started(self) -> Any:
        ray = _ray(local=self._address is None)
        if not ray.is_initialized():
            self._before = signal.getsignal(signal.SIGTERM)  # Ray sets one of its own
            self._ours = True
            try:
                ray.init(log_to_driver=False, logging_level="ERROR", **self._options())
            except (ConnectionError, RuntimeError, ValueError) as error:
                self.close()
                where = self._address or "this machine"
                raise UserError(f"ray: no cluster at {where}: {str(error).splitlines()[0]}") from None
        if self._asked is None:
            self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        return ray

    def _options(self) -> dict[str, Any]:
        if self._address is not None:
            return {"address": self._address}
        self._folder = tempfile.mkdtemp(prefix="treadle-ray-")  # short: paths of sockets have at most 107 bytes
        return {
            "address": "local",
            "num_cpus": self.workers,
            "num_gpus": 0,
            "include_dashboard": False,
            "object_store_memory": max(_LEAST_STORE, _STORE * self.workers),
            "_temp_dir": os.path.join(self._folder, "r"),  # noqa: PTH118 (text); Ray opens it to all, the outer one stays ours
        }


def _call(function: Callable[[S], R], shard: S) -> R:
    return function(shard)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # as it was raised, without Ray's account of where
    except ray.exceptions.RayError as error:
        raise TreadleError(
            f"ray: a shard was lost ({type(error).__name__}); there may be too little memory: run the same command"
            " again, with fewer workers if it happens twice"
        ) from None


def _ray(*, local: bool) -> Any:
    before = "ray" in sys.modules
    for name, value in {**_QUIET, **(_LOCAL if local and not before else {})}.items():
        os.environ.setdefault(name, value)
    if local and not before and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
        from ray._private import ray_constants
    except ImportError:
        raise MissingExtra("ray", extra="ray") from None
    if local and not ray.is_initialized() and ray_constants.ENABLE_RAY_CLUSTER:
        wanted = " ".join(f"{name}={value}" for name, value in _LOCAL.items())
        raise UserError(
            "ray: it was imported before Treadle could keep its cluster to this machine;"
            f" set {wanted} and RAY_AUTH_TOKEN, or import it later"
        )
    return ray


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
