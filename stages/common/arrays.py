"""A split's arrays as prepare wrote them: one `.npy` file for each kind, memory-mapped."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


def load_arrays(folder: Path) -> dict[str, Array]:
    """The arrays of a split, memory-mapped and read-only."""
    files = sorted(folder.glob("*.npy"))
    return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in files}
