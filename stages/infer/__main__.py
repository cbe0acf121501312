"""From a trained model and new rows to predictions: `python -m stages.infer`.

Reads `infer.input`, the model of `data/train` and the schema of `data/prepare`; writes
`data/infer/predictions.parquet`: the row key, the predicted class and the probability of each
class, or the value; its metadata name the model. Rows that the model can't be given are set aside
in `data/infer/rejected.csv`, with their reason.
"""

from pathlib import Path

from stages.common.params import Params
from stages.common.predict import load_predictor
from stages.common.stage import run_stage
from stages.infer.params import InferParams
from stages.infer.write import describe, write_predictions

INPUT = "infer.input"


def infer(params: Params, out: Path) -> None:
    """Read, predict, write, chunk by chunk."""
    section = params.section("infer", InferParams)
    source, predictor = Path(section.input), load_predictor()
    target, rejected = out / "predictions.parquet", out / "rejected.csv"
    outcome = write_predictions(source, target, rejected, predictor, INPUT)
    for note in outcome.notes:
        print(note)
    print(f"{source}: {outcome.num_predicted} rows predicted")
    if outcome.num_damaged:
        print(f"{outcome.num_damaged} rows set aside in data/infer/rejected.csv, such as:")
        for damage in outcome.examples:
            print(f"  {describe(damage)}")


if __name__ == "__main__":
    run_stage("infer", infer)
