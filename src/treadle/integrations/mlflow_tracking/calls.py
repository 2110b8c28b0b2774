"""The calls that are served. The list in ``docs/reference/mlflow.md`` is made of this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from treadle.integrations.mlflow_tracking import experiments, files, logged_models, registry, runs, searching
from treadle.integrations.mlflow_tracking.fields import Fields
from treadle.integrations.mlflow_tracking.tracker import Tracker

Answer = Callable[[Tracker, Fields], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """A method and a path under ``/api/2.0/mlflow/``, and what answers it. ``quick``: within a millisecond or two."""

    method: str
    path: str
    answer: Answer
    quick: bool = False


CALLS = (
    Call("POST", "experiments/create", experiments.create),
    Call("GET", "experiments/get", experiments.get),
    Call("GET", "experiments/get-by-name", experiments.get_by_name),
    Call("GET", "experiments/search", experiments.search),
    Call("POST", "experiments/search", experiments.search),
    Call("POST", "experiments/update", experiments.update),
    Call("POST", "experiments/delete", experiments.delete),
    Call("POST", "experiments/restore", experiments.restore),
    Call("POST", "experiments/set-experiment-tag", experiments.set_tag),
    Call("POST", "experiments/delete-experiment-tag", experiments.delete_tag),
    Call("POST", "runs/create", runs.create),
    Call("GET", "runs/get", runs.get),
    Call("POST", "runs/update", runs.update),
    Call("POST", "runs/delete", runs.delete),
    Call("POST", "runs/restore", runs.restore),
    Call("POST", "runs/search", searching.search),
    Call("POST", "runs/log-metric", runs.log_metric, quick=True),
    Call("POST", "runs/log-parameter", runs.log_param, quick=True),
    Call("POST", "runs/set-tag", runs.set_tag, quick=True),
    Call("POST", "runs/delete-tag", runs.delete_tag),
    Call("POST", "runs/log-batch", runs.log_batch, quick=True),
    Call("POST", "runs/log-model", runs.log_model),
    Call("POST", "runs/log-inputs", runs.log_inputs),
    Call("POST", "runs/outputs", runs.log_outputs),
    Call("GET", "metrics/get-history", runs.history),
    Call("GET", "metrics/get-history-bulk", runs.history_of_many),
    Call("GET", "metrics/get-history-bulk-interval", runs.history_of_many),
    Call("GET", "artifacts/list", files.list_of_run),
    Call("POST", "logged-models", logged_models.create),
    Call("POST", "logged-models/search", logged_models.search),
    Call("GET", "logged-models/{model_id}", logged_models.get),
    Call("PATCH", "logged-models/{model_id}", logged_models.finalize),
    Call("DELETE", "logged-models/{model_id}", logged_models.delete),
    Call("PATCH", "logged-models/{model_id}/tags", logged_models.set_tags),
    Call("DELETE", "logged-models/{model_id}/tags/{tag_key}", logged_models.delete_tag),
    Call("POST", "logged-models/{model_id}/params", logged_models.log_params),
    Call("GET", "logged-models/{model_id}/artifacts/directories", files.list_of_model),
    Call("POST", "registered-models/create", registry.create_model),
    Call("GET", "registered-models/get", registry.get_model),
    Call("POST", "registered-models/rename", registry.rename_model),
    Call("PATCH", "registered-models/update", registry.update_model),
    Call("DELETE", "registered-models/delete", registry.delete_model),
    Call("GET", "registered-models/search", registry.search_models),
    Call("GET", "registered-models/get-latest-versions", registry.latest_versions),
    Call("POST", "registered-models/get-latest-versions", registry.latest_versions),
    Call("POST", "registered-models/set-tag", registry.set_model_tag),
    Call("DELETE", "registered-models/delete-tag", registry.delete_model_tag),
    Call("POST", "registered-models/alias", registry.set_alias),
    Call("DELETE", "registered-models/alias", registry.delete_alias),
    Call("GET", "registered-models/alias", registry.version_by_alias),
    Call("POST", "model-versions/create", registry.create_version),
    Call("GET", "model-versions/get", registry.get_version),
    Call("PATCH", "model-versions/update", registry.update_version),
    Call("POST", "model-versions/transition-stage", registry.transition),
    Call("DELETE", "model-versions/delete", registry.delete_version),
    Call("GET", "model-versions/search", registry.search_versions),
    Call("GET", "model-versions/get-download-uri", registry.download_uri),
    Call("POST", "model-versions/set-tag", registry.set_version_tag),
    Call("DELETE", "model-versions/delete-tag", registry.delete_version_tag),
)
