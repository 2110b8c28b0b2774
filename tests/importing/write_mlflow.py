"""Run by MLflow's own interpreter: writes a store with three runs and a registered model of two versions."""

import sys

from mlflow import MlflowClient

uri, first, second, artifacts = sys.argv[1:]
client = MlflowClient(uri)
experiment = client.create_experiment("reviews", artifact_location=artifacts)
made = []
for number, model in enumerate((first, second)):
    tags = {"team": "nlp", "mlflow.user": "jane.roe", "mlflow.note.content": "Jane Quillfeather likes this one"}
    run = client.create_run(experiment, tags=tags, run_name=f"try {number}").info.run_id
    client.log_param(run, "lr", 10.0**-number)
    client.log_param(run, "prompt", "Be kind to Jane Quillfeather")
    for step in range(5):
        client.log_metric(run, "loss", 2.0 / (step + 1) + number, step=step)
    client.log_metric(run, "broken", float("nan"))
    client.log_metric(run, "endless", float("inf"))
    client.log_artifacts(run, model, "model")
    client.set_terminated(run, "FINISHED" if number == 0 else "FAILED")
    made.append(run)
client.create_run(experiment)
client.create_registered_model("helper")
client.create_registered_model("Reviews of 2026")
for run in made:
    client.create_model_version("Reviews of 2026", source=f"runs:/{run}/model", run_id=run)
client.create_model_version("helper", source=f"runs:/{made[0]}/model", run_id=made[0])
client.create_model_version("helper", source="s3://bucket/model")
client.set_registered_model_alias("Reviews of 2026", "champion", 1)
client.set_registered_model_alias("Reviews of 2026", "Prod", 2)
