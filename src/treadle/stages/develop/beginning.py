"""What weights a training begins from, and beside which base an adapter is learned.

With `method: lora` a later training goes on with the adapter of the model it begins from, so that all versions stay
beside one base. Where that base is another by now, the model itself is the next one's base.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.core.driver import Driver
from treadle.lm.adapter import FOLDER
from treadle.lm.model import Model


@dataclass(frozen=True)
class Beginning:
    """``folder``: a model's; ``adapter``: the folder of one to go on from, None for a new one. ``base``: the digest of
    what it lies beside, a base model's or that of a model in the store."""

    folder: Path
    adapter: Path | None
    base: str


def begin(base: Any, begun: Model | None, beside: Model | None, method: str) -> Beginning:
    """From ``begun``, else from ``base`` as it is. ``beside``: as `beside_of` found it, or ``begun``."""
    if begun is None:
        return Beginning(base.path, None, base.digest)
    of = begun.adapter_base()
    if method == "lora" and of is not None:
        if of == base.digest:
            return Beginning(base.path, begun.path() / FOLDER, of)
        if beside is not None and of == beside.digest:
            return Beginning(beside.path(), begun.path() / FOLDER, of)
    return Beginning(begun.path(), None, begun.digest)


def beside_of(driver: Driver, start: Model | None, method: str) -> Model | None:
    """The model of this project that the adapter of ``start`` lies beside; None where that is a base model, or gone."""
    if method != "lora" or start is None or start.pending:
        return None
    of = start.adapter_base()
    if of is None or of == start.about()["base_model"]["digest"] or not driver.runs.store.has(of):
        return None
    return Model(of, driver.runs.store)
