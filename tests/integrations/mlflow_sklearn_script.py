"""A training with scikit-learn that logs by itself."""

import mlflow
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

mlflow.set_experiment("autolog")
mlflow.sklearn.autolog()
rows, labels = make_classification(120, random_state=3)
make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(rows, labels)
