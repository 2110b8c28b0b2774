"""The calls that are served. The list in ``docs/reference/mlflow.md`` is made of this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from treadle.integrations.mlflow_tracking import (
    experiments,
    files,
    logged_models,
    metric_history,
    model_versions,
    registered_models,
    runs,
    searching,
)
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
    Call("GET", "metrics/get-history", metric_history.of_one),
    Call("GET", "metrics/get-history-bulk", metric_history.of_many),
    Call("GET", "metrics/get-history-bulk-interval", metric_history.of_many),
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
    Call("POST", "registered-models/create", registered_models.create),
    Call("GET", "registered-models/get", registered_models.get),
    Call("POST", "registered-models/rename", registered_models.rename),
    Call("PATCH", "registered-models/update", registered_models.update),
    Call("DELETE", "registered-models/delete", registered_models.delete),
    Call("GET", "registered-models/search", registered_models.search),
    Call("GET", "registered-models/get-latest-versions", registered_models.latest_versions),
    Call("POST", "registered-models/get-latest-versions", registered_models.latest_versions),
    Call("POST", "registered-models/set-tag", registered_models.set_tag),
    Call("DELETE", "registered-models/delete-tag", registered_models.delete_tag),
    Call("POST", "registered-models/alias", registered_models.set_alias),
    Call("DELETE", "registered-models/alias", registered_models.delete_alias),
    Call("GET", "registered-models/alias", registered_models.version_by_alias),
    Call("POST", "model-versions/create", model_versions.create),
    Call("GET", "model-versions/get", model_versions.get),
    Call("PATCH", "model-versions/update", model_versions.update),
    Call("POST", "model-versions/transition-stage", model_versions.transition),
    Call("DELETE", "model-versions/delete", model_versions.delete),
    Call("GET", "model-versions/search", model_versions.search),
    Call("GET", "model-versions/get-download-uri", model_versions.download_uri),
    Call("POST", "model-versions/set-tag", model_versions.set_tag),
    Call("DELETE", "model-versions/delete-tag", model_versions.delete_tag),
)
