"""As much of MLflow as `log_mlflow.py` calls; it keeps runs in a file of the current folder."""
