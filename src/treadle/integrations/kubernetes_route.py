"""An HTTPRoute of the Gateway API: how a Gateway shares requests among the Services of two releases.

Of the standard channel's core features alone: weights, and exact matches of headers. Weights draw each request anew.
Nothing in that channel keeps a person on one side by a hash of who it is, and session persistence is experimental as of
1.6 (https://gateway-api.sigs.k8s.io/geps/gep-1619/). So a request that brings the header back, by which an answer named
its release, gets that release again for as long as it is there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from treadle.core.errors import UserError

VERSION, KIND = "gateway.networking.k8s.io/v1", "HTTPRoute"
HEADERS = ("treadle-release", "treadle-model")  # the first is that of our answers
STEPS = 1000  # the weights of a route add up to so many
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True)
class Backend:
    """The Service of a release, named by digest and model; ``share`` of the requests, from 0 to 1."""

    service: str
    release: str
    model: str
    share: float

    @property
    def reference(self) -> dict[str, Any]:
        """As routes name it."""
        return {"group": "", "kind": "Service", "name": self.service, "port": 80}


def check(target: str, gateway: str, host: str) -> None:
    """``UserError`` where these are no names of a Gateway and of a host."""
    parts = gateway.split("/")
    if gateway and (len(parts) > 2 or not all(map(_NAME.fullmatch, parts))):
        raise UserError(f"target {target}: gateway {gateway!r}: expected the NAME or NAMESPACE/NAME of a Gateway")
    if host and (not _HOST.fullmatch(host) or len(host) > 253):
        raise UserError(f"target {target}: host {host!r}: expected a name in small letters, such as models.example.org")
    if host and not gateway:
        raise UserError(f"target {target}: host is a route's; name the Gateway beside it: gateway=NAMESPACE/NAME")


def spec(gateway: str, host: str, backends: Sequence[Backend]) -> dict[str, Any]:
    """Of an HTTPRoute for everything that the Gateway gets for ``host``; each of several backends can be asked by
    name."""
    namespace, _, name = gateway.rpartition("/")
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name}
    found: dict[str, Any] = {"parentRefs": [{**parent, "namespace": namespace} if namespace else parent]}
    if host:
        found["hostnames"] = [host]
    named = [
        {"matches": _matches(each, backends), "backendRefs": [each.reference]}
        for each in (backends if len(backends) > 1 else ())
    ]
    shared = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": [{**each.reference, "weight": round(each.share * STEPS)} for each in backends],
    }
    return {**found, "rules": [*named, shared]}


def _matches(asked: Backend, backends: Sequence[Backend]) -> list[dict[str, Any]]:
    """The release's digest, or its model's name, where that says which of them is meant."""
    values = [asked.release, *([asked.model] if sum(each.model == asked.model for each in backends) == 1 else ())]
    pairs = zip(HEADERS, values, strict=False)
    return [{"headers": [{"type": "Exact", "name": header, "value": value}]} for header, value in pairs]
