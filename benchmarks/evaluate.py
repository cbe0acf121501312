"""What 1,000 resamples of 200,000 rows cost, beside scikit-learn's own metric on each.

    OMP_NUM_THREADS=1 python -m benchmarks.evaluate

scikit-learn is given the same weights as `sample_weight`, a few resamples of them, and the two
must agree. One core: the bar is 10 s for an AUROC.
"""

import os
import time

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from stages.evaluate.measure.bootstrap import RESAMPLES, draw_weights, find_intervals
from stages.evaluate.measure.weighted_metrics import weighted_metric

ROWS = 200_000
COMPARED = 10
REFERENCES = {"roc_auc": roc_auc_score, "average_precision": average_precision_score}


def main() -> None:
    """Measure on scores without ties and on rounded ones, and print."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    random = np.random.default_rng(0)
    target = random.integers(2, size=ROWS)
    score = 1 / (1 + np.exp(-(random.normal(size=ROWS) + target)))
    print(f"| metric | {RESAMPLES} resamples of {ROWS} rows | scikit-learn's time over Reprise's |")
    print("|---|---|---|")
    for scores, kind in ((score, "no two equal"), (score.round(3), "1,000 different")):
        probabilities = np.stack([1 - scores, scores], axis=1)
        for name in REFERENCES:
            seconds = _seconds(name, target, probabilities)
            sklearn = _sklearn(name, target, probabilities) * RESAMPLES
            print(f"| {name}, scores {kind} | {seconds:.1f} s | {sklearn / seconds:.0f} |")
    for name in ("log_loss", "f1_macro"):
        print(f"| {name} | {_seconds(name, target, probabilities):.1f} s | |")


def _seconds(name: str, target: np.ndarray, probabilities: np.ndarray) -> float:
    start = time.perf_counter()
    find_intervals([name], "classification", target, probabilities)
    return time.perf_counter() - start


def _sklearn(name: str, target: np.ndarray, probabilities: np.ndarray) -> float:
    """Seconds that a resample costs with scikit-learn."""
    own = weighted_metric(name, "classification", target, probabilities)
    assert own is not None
    seconds = 0.0
    for weights in (row for block in draw_weights(ROWS, COMPARED) for row in block):
        start = time.perf_counter()
        value = REFERENCES[name](target, probabilities[:, 1], sample_weight=weights)
        seconds += time.perf_counter() - start
        assert abs(value - own(weights[None])[0]) < 1e-9
    return seconds / COMPARED


if __name__ == "__main__":
    main()
