"""The order of the files of tests: what takes long begins first, so that none is left at the end.

`pytest --dist loadfile` gives the next file to the next worker that is free.
"""

from pathlib import Path

# The first makes the example that others wait for; some that compute stand between those that wait.
FIRST = (
    *("end_to_end/test_pipeline", "pipeline/run/test_flow", "stages/zoo/test_contract"),
    *("pipeline/elsewhere/test_lost", "pipeline/elsewhere/test_elsewhere", "stages/features"),
    *("stages/formats", "stages/training/test_processes", "pipeline/scheduled/test_scheduled"),
    *("pipeline/server/test_up", "end_to_end/failures/test_mistakes"),
    *("end_to_end/failures/test_brought_back", "stages/infer/test_infer"),
    *("pipeline/metrics/test_gates", "pipeline/commands/sources", "pipeline/params/test_check"),
    *("pipeline/deps/test_deps", "end_to_end/test_knobs", "stages/parallel", "end_to_end"),
)


def find_rank(file: Path) -> int:
    """The place of a file below `tests`: that of the first entry that its name begins with."""
    starts = (rank for rank, start in enumerate(FIRST) if str(file).startswith(start))
    return next(starts, len(FIRST))
