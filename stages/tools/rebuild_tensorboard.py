"""Writes anew what TensorBoard shows of a training that DVC restored, from its `history.csv`.

`python -m stages.tools.rebuild_tensorboard`, which leaves events alone that are there.
"""

import math
from pathlib import Path

from stages.common.files import read_csv, read_json
from stages.common.params import read_params
from stages.train.logs.tensorboard import open_tensorboard, run_folder
from stages.train.recipe import read_recipe
from stages.train.results import OBJECTIVE
from stages.training.state import Epoch


def rebuild() -> None:
    """Write the scalars of the training in `data/train` anew, unless its events are there."""
    params = read_params("train")
    recipe = read_recipe(params)
    section, spec = recipe.train, recipe.model
    history = Path("data/train/history.csv")
    folder = run_folder(spec, section, params.seed)
    if any(folder.glob("events.out.tfevents.*")):
        print(f"{folder} has its events already")
        return
    if not history.exists():
        print(f"there is no {history}: 'dvc repro train' or 'dvc pull' brings it")
        return
    rows = [{k: float(v) for k, v in row.items()} for row in read_csv(history)]
    metric = next(name for name in rows[0] if name not in Epoch.__annotations__)
    epochs = [
        Epoch(
            epoch=int(row["epoch"]),
            learning_rate=row["learning_rate"],
            gradient_norm=row["gradient_norm"],
            # Members of an ensemble that learn by different losses leave no mean of them.
            train_loss=row.get("train_loss", math.nan),
            validation_loss=row.get("validation_loss", math.nan),
            metric=row[metric],
            logged={
                name.removeprefix(OBJECTIVE): value
                for name, value in row.items()
                if name.startswith(OBJECTIVE)
            },
        )
        for row in rows
    ]
    with open_tensorboard(
        spec, section, params.seed, metric.removeprefix("validation_")
    ) as tensorboard:
        for epoch in epochs:
            tensorboard.write_epoch(epoch)
        number = read_json(Path("data/train/metrics.json"))["kept_epoch"]
        tensorboard.write_hyper_parameters(epochs[number - 1])
    print(f"rebuilt {folder} from {history}")


if __name__ == "__main__":
    rebuild()
