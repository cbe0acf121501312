"""Our own models, found by file name: `build.model.name: mlp` loads `stages/zoo/models/mlp.py`."""
