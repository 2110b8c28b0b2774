"""Everything that MLflow's client reads back, as JSON, without ids and times."""

import json
import math
import sys

from mlflow import MlflowClient
from mlflow.entities import ViewType

client = MlflowClient()


def number(value):
    return value if math.isfinite(value) else str(value)


def dataset(taken):
    told = taken.dataset
    fields = (told.name, told.digest, told.source_type, told.source, told.schema, told.profile)
    return [*fields, sorted((tag.key, tag.value) for tag in taken.tags)]


def run(of):
    found = client.get_run(of.info.run_id)
    metrics = found.data.metrics
    # The two backends of MLflow's own do not agree on the largest number there is, which stands for infinity.
    far = {name for name, value in metrics.items() if abs(value) > 1e308}
    history = {name: client.get_metric_history(of.info.run_id, name) for name in metrics}
    return {
        "name": found.info.run_name,
        "status": found.info.status,
        "stage": found.info.lifecycle_stage,
        "user": found.info.user_id,
        "timed": [found.info.start_time is not None, found.info.end_time is not None],
        "params": found.data.params,
        "metrics": {name: "far" if name in far else number(value) for name, value in metrics.items()},
        "history": {
            name: [(each.step, "far" if name in far else number(each.value)) for each in points]
            for name, points in history.items()
        },
        "tags": {
            name: value
            for name, value in found.data.tags.items()
            if name not in ("mlflow.parentRunId", "mlflow.log-model.history")
        },
        "datasets": [dataset(each) for each in found.inputs.dataset_inputs],
        "models": [len(found.inputs.model_inputs), len(found.outputs.model_outputs)],
        "files": sorted(each.path for each in client.list_artifacts(of.info.run_id)),
    }


def version(of):
    told = [of.name, str(of.version), of.description or "", of.current_stage, of.status, bool(of.run_id)]
    return [*told, dict(of.tags)]  # a search in a database gives no aliases


def aliases(of):
    """MLflow's client gives numbers from a database, and texts from a server."""
    return {alias: str(number) for alias, number in of.aliases.items()}


experiments = {}
for experiment in client.search_experiments(view_type=ViewType.ALL):
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    experiments[experiment.name] = {
        "stage": experiment.lifecycle_stage,
        "tags": experiment.tags,
        "runs": sorted((run(each) for each in runs), key=lambda each: (each["status"], each["name"])),
        "models": sorted(
            [each.name, each.status.value, each.params, sorted((m.key, m.value) for m in each.metrics)]
            for each in client.search_logged_models([experiment.experiment_id])
        ),
    }
models = [
    [each.name, each.description or "", dict(each.tags), aliases(each)] for each in client.search_registered_models()
]
versions = [version(each) for each in client.search_model_versions()]
sys.stdout.write(json.dumps({"experiments": experiments, "models": models, "versions": sorted(versions)}))
