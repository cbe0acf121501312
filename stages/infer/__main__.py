"""From a trained model and new rows to predictions: `python -m stages.infer`.

Reads `infer.input`, the model of `data/train` and the schema of `data/prepare`; writes
`data/infer/predictions.parquet`: the row key, the predicted class and the probability of each
class, or the value; its metadata name the model. Rows that the model can't be given are set aside
in `data/infer/rejected.csv`, with their reason. `model.onnx` holds the model and its preparation,
`signature.json` says how to call it.
"""

from pathlib import Path

from stages.common.files import write_json
from stages.common.params import Params
from stages.common.predict import Predictor, load_predictor
from stages.common.stage import run_stage
from stages.infer.bundle import export
from stages.infer.chunks import read_chunks
from stages.infer.damage import encode_whole
from stages.infer.params import InferParams
from stages.infer.signature import signature
from stages.infer.verify import verify
from stages.infer.write import describe, write_predictions

INPUT = "infer.input"
ROWS_COMPARED = 1024


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
    export_model(source, predictor, out)


def export_model(source: Path, predictor: Predictor, out: Path) -> None:
    """Write the model with its preparation, once it agrees with the model on the first new rows."""
    chunks = read_chunks(source, predictor.schema, INPUT)
    encoded = (encode_whole(c, predictor.schema, predictor.statistics, INPUT) for c in chunks)
    table, arrays = next((whole.table, arrays) for whole, arrays in encoded if arrays)
    bundle = export(predictor, arrays)
    rows = table.head(ROWS_COMPARED)
    largest = verify(bundle, predictor, rows, INPUT)
    (out / "model.onnx").write_bytes(bundle)
    write_json(out / "signature.json", signature(predictor, bundle))
    print(f"model.onnx: differs from the model by {largest:.1e} at most, in {rows.height} rows")


if __name__ == "__main__":
    run_stage("infer", infer)
