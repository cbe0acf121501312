"""From a trained model and new rows to predictions: `python -m stages.infer`.

Reads `infer.input`, the model of `data/train` and the schema of `data/prepare`; writes
`data/infer/predictions.parquet`: the row key, the predicted class and the probability of each
class, or the value.
"""

from pathlib import Path

from stages.common.params import Params
from stages.common.predict import load_predictor
from stages.common.stage import run_stage
from stages.common.tables import read_table
from stages.infer.notes import notes_on
from stages.infer.params import InferParams

INPUT = "infer.input"


def infer(params: Params, out: Path) -> None:
    """Read, predict, write."""
    section = params.section("infer", InferParams)
    table = read_table(Path(section.input), INPUT)
    predictor = load_predictor()
    predictions = predictor.predict(table, INPUT)
    predictions.write_parquet(out / "predictions.parquet", compression="zstd", statistics=True)

    for note in notes_on(table, predictor.schema):
        print(f"note: {note}")
    print(f"{section.input}: {predictions.height} rows predicted")


if __name__ == "__main__":
    run_stage("infer", infer)
