"""Predictions from a trained model and new rows: `python -m stages.infer`.

Reads `infer.input` (null: the rows of the test split, and their numbers), the model of `data/train`
and the schema of `data/prepare`; writes `data/infer/predictions.parquet`: the row key, the
predicted class and the probability of each class, or the value, with the set of classes or the
interval that `evaluate.coverage` asks for; its metadata name the model. Rows that the model can't
be given are set aside in `data/infer/rejected.csv`, with their reason. `model.onnx` and `model.pt2`
hold the model and its preparation, `signature.json` says how to call them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.common.addresses import local_path, name_objects
from stages.common.counts import counted
from stages.common.files import write_json
from stages.common.params import Params
from stages.formats.read import read_chunks
from stages.infer.export.onnx_graph import export
from stages.infer.export.signature import signature
from stages.infer.export.torch_program import export_program, program_signature
from stages.infer.export.verify import verify, verify_program
from stages.infer.params import Export, InferParams
from stages.infer.rejected import encode_whole
from stages.infer.stream import Cluster, Trained
from stages.infer.write import describe, write_predictions
from stages.model.conformal import CoverageParams
from stages.model.predictor import Predictor, load_predictor, predictor_digest
from stages.parallel.open_mapper import open_mapper
from stages.runtime.stage import run_stage

INPUT = "infer.input"
TEST_ROWS = Path("data/prepare/test_rows.parquet")
TEST_KEYS = Path("data/prepare/test/key.npy")
ROWS_COMPARED = 1024
# A shorter file is predicted sooner than a worker has loaded the model.
CLUSTER_BYTES = 16 << 20


def infer(params: Params, out: Path) -> None:
    """Read, predict, write, chunk by chunk."""
    section = params.section("infer", InferParams)
    source = TEST_ROWS if section.input is None else local_path("infer", section.input)
    coverage = params.section("evaluate", CoverageParams).coverage
    predictor = load_predictor(coverage=coverage)
    target, rejected = out / "predictions.parquet", out / "rejected.csv"
    # A test row without a key is named by its number in the source, as evaluate names it.
    by_number = section.input is None and predictor.schema.key is None
    numbers = np.load(TEST_KEYS) if by_number else None
    write = partial(write_predictions, source, target, rejected, predictor, INPUT)
    with open_cluster_for(source, coverage, out) as cluster:
        summary = write(cluster=cluster, numbers=numbers)
    for note in summary.notes:
        print(name_objects(note))
    print(f"{name_objects(str(source))}: {counted(summary.num_predicted, 'row')} predicted")
    if summary.num_damaged:
        many = counted(summary.num_damaged, "row")
        print(f"{many} set aside in data/infer/rejected.csv, such as:")
        for damage in summary.examples:
            print(f"  {describe(damage)}")
    export_model(source, section.export, predictor, out, numbers)


@contextmanager
def open_cluster_for(source: Path, coverage: float | None, out: Path) -> Iterator[Cluster | None]:
    """The cluster that the environment names, for a long file; None: the rows are predicted here.

    Workers must see `out`, and `data/train` beside it. Raises UserError as `open_mapper`.
    """
    if not source.is_file() or source.stat().st_size <= CLUSTER_BYTES:
        yield None
        return
    data = TEST_ROWS.parent.parent.resolve()
    with open_mapper("infer", out) as mapper:
        if not mapper.is_remote:
            yield None
            return
        yield Cluster(mapper, Trained(data, coverage, predictor_digest(data, coverage)))


def export_model(
    source: Path,
    exports: Sequence[Export],
    predictor: Predictor,
    out: Path,
    numbers: npt.NDArray[np.int64] | None = None,
) -> None:
    """Write the model with its preparation, once it agrees with the model on the first new rows.

    A file that `exports` leaves out is empty: DVC wants all outputs of a stage. `numbers` name the
    rows; None: their places in the file.
    """
    chunks = read_chunks(source, predictor.schema, INPUT)
    encoded = (encode_whole(c, predictor.schema, predictor.statistics, INPUT) for c in chunks)
    whole, arrays = next((whole, arrays) for whole, arrays in encoded if arrays)
    rows = whole.table.head(ROWS_COMPARED)
    named = (whole.rows if numbers is None else numbers[whole.rows]).tolist()
    called: dict[str, object] = {"exports": list(exports)}
    bundle = program = b""
    if "onnx" in exports:
        bundle = export(predictor, arrays)
        _say("model.onnx", verify(bundle, predictor, rows, INPUT, named), rows.height)
    if "program" in exports:
        program = export_program(predictor)
        called["program"] = program_signature(predictor)
        largest = verify_program(program, predictor, rows, INPUT, named)
        _say("model.pt2", largest, rows.height)
    (out / "model.onnx").write_bytes(bundle)
    (out / "model.pt2").write_bytes(program)
    write_json(out / "signature.json", signature(predictor, bundle) | called)


def _say(file: str, largest: float, num_rows: int) -> None:
    print(f"{file}: differs from the model by {largest:.1e} at most, in {num_rows} rows")


if __name__ == "__main__":
    run_stage("infer", infer)
