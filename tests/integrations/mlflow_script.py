"""What people's own code does with MLflow, for both sides alike: it knows no tracker but ``MLFLOW_TRACKING_URI``."""

import mlflow
from mlflow import MlflowClient


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


def main() -> None:
    client = MlflowClient()
    mlflow.set_experiment("reviews")
    with mlflow.start_run(run_name="first", description="what it is about") as parent:
        mlflow.log_params({"lr": 1e-4, "neg": -3, "none": None, "flag": True, "text": "two words", "0x:y z": "1.50"})
        for step in range(20):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"a": 1.5, "gone": float("nan"), "far": float("inf")}, step=3)
        mlflow.set_tags({"team": "nlp", "note": "a longer\ntext with ümlauts"})
        mlflow.log_text("content", "texts/a.txt")
        mlflow.log_dict({"x": 1}, "conf.json")
        logged = mlflow.pyfunc.log_model(
            name="model", python_model=Echo(), registered_model_name="reviewer", pip_requirements=[], params={"p": "1"}
        )
        mlflow.log_metric("accuracy", 0.5, model_id=logged.model_id)
        with mlflow.start_run(run_name="inner", nested=True):
            mlflow.log_metric("loss", 7.0)
    client.set_registered_model_alias("reviewer", "champion", "1")
    client.set_model_version_tag("reviewer", "1", "ok", "yes")
    model = mlflow.pyfunc.load_model("models:/reviewer@champion")
    assert model.predict(["heard"]) == ["heard"]
    mlflow.register_model(f"models:/{logged.model_id}", "second")

    try:
        with mlflow.start_run(run_name="broken"):
            raise RuntimeError("on purpose")
    except RuntimeError:
        pass
    with mlflow.start_run(run_id=parent.info.run_id):  # goes on
        mlflow.log_metric("later", 2.0)
    client.log_metric(parent.info.run_id, "after", 3.0)
    put_away = client.create_run("0", run_name="put away")
    client.delete_run(put_away.info.run_id)
    client.delete_tag(parent.info.run_id, "team")
    try:
        client.log_param(parent.info.run_id, "lr", "2")
        raise AssertionError("another value was taken")
    except mlflow.MlflowException as error:
        assert error.error_code == "INVALID_PARAMETER_VALUE", error

    query = "metrics.loss < 0.5 and params.lr = '0.0001' and tags.note LIKE '%longer%' and status = 'FINISHED'"
    (found,) = mlflow.search_runs(experiment_names=["reviews"], filter_string=query, output_format="list")
    assert found.info.run_id == parent.info.run_id
    assert mlflow.artifacts.load_text(found.info.artifact_uri + "/texts/a.txt") == "content"
    assert [each.path for each in client.list_artifacts(found.info.run_id)] == ["conf.json", "texts"]


main()
