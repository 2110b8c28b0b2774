"""MLflow's REST tracking API over this project's record: ``treadle listen mlflow``. MLflow itself is not needed.

``problem`` and ``fields`` are the shapes of errors and of what comes in; ``tracker`` is what all calls share;
``experiments``, ``runs``, ``searching``, ``metric_history``, ``files``, ``logged_models``, ``registered_models`` and
``model_versions`` answer; ``calls`` is the list; ``app`` is the web application.
"""
