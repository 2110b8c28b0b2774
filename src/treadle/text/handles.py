"""Handles of what is derived from a dataset; what is in them is read by ``text.similarity`` and ``text.profile``."""

from __future__ import annotations

from typing import ClassVar

from treadle.core.artifacts import Artifact


class Index(Artifact):
    """The similarity index over the training examples."""

    kind: ClassVar[str] = "index"


class Profile(Artifact):
    """The profile of the training questions that drift is measured against; empty where they were too few."""

    kind: ClassVar[str] = "profile"


class QualityClassifier(Artifact):
    """A classifier of good and bad texts, with what it was found to be worth; read by ``text.quality_model``."""

    kind: ClassVar[str] = "quality"


class Features(Artifact):
    """Handle to texts as numbers (``treadle.text.tfidf``)."""

    kind: ClassVar[str] = "features"
