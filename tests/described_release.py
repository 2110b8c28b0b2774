"""A release to be rendered that is there as its description alone: digests of nothing, and figures to reckon with."""

from __future__ import annotations

from dataclasses import replace

from treadle.record.release import ReleaseSpec
from treadle.stages.deploy.targets import Rendering

SPEC = ReleaseSpec(
    name="helper",
    task="chat",
    model="b3:" + "11" * 32,
    dataset="b3:" + "22" * 32,
    base_model={"name": "tiny", "digest": "b3:" + "33" * 32, "license": "MIT", "origin": "here"},
    engine="openvino",
)


def described(
    name: str = "helper", *, engine: str = "openvino", asking: str = "chat", version: int = 3, digest: str = "ab"
) -> Rendering:
    """One of 140 MB, whose engine took 500 MB; ``digest`` is that of the release, two hexadecimal digits again and
    again."""
    spec = replace(SPEC, name=name, engine=engine, asking=asking)
    return Rendering(f"b3:{digest * 32}", f"{name}@v{version}", spec, engine, 140_000_000, 500_000_000)
