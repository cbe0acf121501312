"""Probabilities from scores, and from those the class that is predicted.

Two numbers say how, and training fits them on the validation rows if it is asked to: a
temperature, and for two classes a threshold. What predicts, measures or exports asks here.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.common.files import read_json
from stages.features.schema import Record

Floats = npt.NDArray[np.float64]


class Calibration(Record):
    """The content of `calibration.json`.

    Scores are divided by `temperature` before they become probabilities; 1 leaves them. Of two
    classes, the second is predicted where its probability is above `threshold`; None: the
    likeliest class is.
    """

    temperature: float = 1.0
    threshold: float | None = None

    def fitted(self) -> dict[str, float]:
        """The numbers that are not those of no calibration, by their names."""
        return dict(sorted(self.model_dump(exclude_defaults=True).items()))


UNCALIBRATED = Calibration()


def read_calibration(folder: Path) -> Calibration:
    """`calibration.json` in `folder`."""
    return Calibration.model_validate(read_json(folder / "calibration.json"))


def to_probabilities(scores: Floats, temperature: float = 1.0) -> Floats:
    """Softmax of `scores / temperature` over the last axis: (rows, classes), rows sum to 1."""
    scaled = scores / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def predict_codes(probabilities: Floats, threshold: float | None) -> npt.NDArray[np.int64]:
    """The code of the predicted class (rows,) from probabilities (rows, classes)."""
    if threshold is None:
        return np.asarray(probabilities.argmax(axis=1))
    return (probabilities[:, 1] > threshold).astype(np.int64)


def margins(probabilities: Floats, threshold: float | None) -> Floats:
    """The change (rows,) of a probability at which another class is predicted."""
    if threshold is not None:
        return np.asarray(np.abs(probabilities[:, 1] - threshold))
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    # What the one gains, the other loses.
    return np.asarray((first - second) / 2)
