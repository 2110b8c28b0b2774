"""Deploy: make the model small without making it worse, bundle a release, try it over real HTTP, serve it."""

from __future__ import annotations

from treadle.stages.deploy.chain import Deployed, deploy
from treadle.stages.deploy.checking import check_deployment
from treadle.stages.deploy.settings import DeploySettings

__all__ = ["DeploySettings", "Deployed", "check_deployment", "deploy"]
