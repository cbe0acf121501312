"""Members of an ensemble, and the parameters of a project to train them in."""

from typing import Any

LR, WIDTH, DROPOUT = "train.optimizer.lr", "build.model.width", "build.model.dropout"
MEMBERS: list[dict[str, Any]] = [
    {"weight": 2, "set": {LR: 0.01}},
    {"weight": 1, "set": {WIDTH: 12, "build.model.layers": 2}},
    {"weight": 1, "set": {DROPOUT: 0.2}},
]
CHANGES = {
    "prepare.key": "id",
    "prepare.split": {"seed": 0, "validation": 0.25, "test": 0.2},
    "evaluate.coverage": 0.8,
    "train.epochs": 4,
    "build.model": {"name": "mlp", "width": 8},
    "tune.epochs": 2,
    "tune.batch": 3,
    "tune.portfolio": False,
    "tune.sampler": "random",
    "tune.space": {LR: {"low": 1e-3, "high": 0.1, "log": True}, WIDTH: [4, 8, 16]},
}
