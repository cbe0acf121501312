"""From first weights to trained ones: `python -m stages.train`.

Reads the arrays of `data/prepare`, the model of `data/build` and the winner of `data/tune`;
writes `data/train/model.safetensors`, `model.json`, `history.csv`, `metrics.json` and plots.
The loop stands in `loop.py`; `fit.py` is what goes in and comes out of it.
"""

from pathlib import Path

from stages.common.params import Params
from stages.common.stage import run_stage
from stages.train.fit import fit, read_recipe
from stages.train.launch import launch
from stages.train.machine import World, num_processes
from stages.train.optimizers import check_names


def train(params: Params, out: Path) -> None:
    """Train in this process, or in several when there are several GPUs or PET_* asks for them."""
    section, _, schema, _ = read_recipe(params)
    check_names(section, schema.target.task)
    processes = num_processes()
    if processes == 1:
        fit(params, out, World())
    else:
        launch(processes, out)


if __name__ == "__main__":
    run_stage("train", train)
