"""Develop: pretrain and fine-tune a base model on the dataset, and say honestly how good it is."""

from __future__ import annotations

from treadle.stages.develop.chain import Base, Continuing, Developed, compared, develop
from treadle.stages.develop.checking import check_trainings
from treadle.stages.develop.settings import DevelopSettings

__all__ = ["Base", "Continuing", "DevelopSettings", "Developed", "check_trainings", "compared", "develop"]
