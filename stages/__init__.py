"""The machine learning: one folder a stage, each started as `python -m stages.<name>`."""
