"""A release: a model version with engine, settings and prompt, ready to run. What every target takes.

Its folder holds ``release.json`` and ``model/``, which an engine opens as it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from treadle.core.artifacts import Artifact
from treadle.core.errors import Corrupt

FORMAT = 1


class Release(Artifact):
    """``release.json``, ``model/`` and the ids of the documents the model was given."""

    kind: ClassVar[str] = "release"

    def read(self) -> ReleaseSpec:
        """What it is made of; ``Corrupt`` when the file is of another format."""
        return ReleaseSpec.from_json(self.read_json("release.json"))


@dataclass(frozen=True, slots=True)
class ReleaseSpec:
    """The contents of ``release.json``. ``model`` and ``dataset`` are artifact digests.

    ``asking`` says by which requests a server is asked: chat, classify, tag, embed.
    """

    name: str
    task: str
    model: str
    dataset: str
    base_model: dict[str, str]
    engine: str
    system_prompt: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    optimization: dict[str, Any] = field(default_factory=dict)
    licenses: tuple[str, ...] = ()
    asking: str = "chat"

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return {"format": FORMAT, **asdict(self), "licenses": list(self.licenses)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ReleaseSpec:
        """The reverse of ``to_json``."""
        if value.get("format") != FORMAT:
            raise Corrupt(f"release of format {value.get('format')!r}; this Treadle reads format {FORMAT}")
        fields = {key: item for key, item in value.items() if key != "format"}
        try:
            return cls(**{"asking": fields["task"], **fields, "licenses": tuple(fields["licenses"])})
        except (KeyError, TypeError) as error:
            raise Corrupt(f"not a release: {error}; run treadle verify") from None
