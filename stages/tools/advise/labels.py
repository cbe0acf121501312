"""Labels that are probably wrong, by confident learning.

A row of class i is counted as one of class j where its probability of j reaches the mean that rows
of class j have themselves; of each pair of classes as many rows are suspects as these counts say,
those that lean the most from i to j (Northcutt, Jiang, Chuang: Confident learning, JAIR 70, 2021;
cleanlab's `prune_by_noise_rate`). The probabilities are of trainings that have not seen the row.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.features.numbers import Rows

Floats = npt.NDArray[np.float64]
# Of a class with fewer rows too little is known.
MIN_ROWS = 5


@dataclass(frozen=True)
class Suspects:
    """Rows whose label is in doubt, the surest first.

    `rows` (suspects,) are their places, `likelier` the codes of the classes that fit better, and
    `margins` how much more probable these are.
    """

    rows: Rows
    likelier: Rows
    margins: Floats


def find_suspects(probabilities: Floats, codes: Rows) -> Suspects:
    """The suspects among rows with the labels `codes` (rows,), by probabilities (rows, classes)."""
    num_classes = probabilities.shape[1]
    counts = np.bincount(codes, minlength=num_classes)
    known = counts >= MIN_ROWS
    thresholds = np.array(
        [
            probabilities[codes == code, code].mean() if known[code] else np.inf
            for code in range(num_classes)
        ]
    )
    reached = probabilities >= thresholds
    # The likeliest of the classes whose threshold is reached.
    confident = np.where(reached, probabilities, -1.0).argmax(axis=1)
    counted = reached.any(axis=1)
    joint = np.zeros((num_classes, num_classes))
    np.add.at(joint, (codes[counted], confident[counted]), 1.0)
    shares = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1.0)
    doubtful = np.rint(shares * counts[:, None]).astype(np.int64)
    margins = np.full(len(codes), -np.inf)
    likelier = codes.copy()
    own = probabilities[np.arange(len(codes)), codes]
    for label in range(num_classes):
        rows = np.flatnonzero(codes == label)
        for other in range(num_classes):
            count = int(doubtful[label, other])
            if other == label or count == 0:
                continue
            lean = probabilities[rows, other] - own[rows]
            chosen = np.argsort(-lean, kind="stable")[:count]
            chosen = chosen[lean[chosen] > margins[rows[chosen]]]
            margins[rows[chosen]], likelier[rows[chosen]] = lean[chosen], other
    found = np.flatnonzero((margins > 0) & (likelier != codes))
    order = found[np.argsort(-margins[found], kind="stable")]
    return Suspects(order, likelier[order], margins[order])
