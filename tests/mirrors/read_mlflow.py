"""Prints what an MLflow server has, by MLflow's own client: ``read_mlflow.py URI EXPERIMENT MODEL``."""

import json
import sys

from mlflow import MlflowClient

uri, experiment, model = sys.argv[1:]
client = MlflowClient(uri)
found = client.get_experiment_by_name(experiment)
runs = []
for run in client.search_runs([found.experiment_id], max_results=1000):
    points = {
        key: [[point.step, point.timestamp, point.value] for point in client.get_metric_history(run.info.run_id, key)]
        for key in run.data.metrics
    }
    inputs = [[each.dataset.name, each.dataset.digest] for each in run.inputs.dataset_inputs]
    info = {"status": run.info.status, "started": run.info.start_time, "ended": run.info.end_time}
    data = {"params": run.data.params, "metrics": run.data.metrics, "tags": run.data.tags}
    runs.append({**info, **data, "name": run.info.run_name, "points": points, "inputs": inputs})
versions = [
    {"version": each.version, "tags": each.tags, "run": each.run_id}
    for each in client.search_model_versions(f"name = '{model}'")
]
aliases = client.get_registered_model(model).aliases if versions else {}
print(json.dumps({"runs": runs, "versions": versions, "aliases": aliases}))
