"""From where on a column is said to have drifted from the one that a model was trained on.

One place for `infer`, which looks at new rows, and for the report on a change of the data. All
is relative to the training's column: a shift of the mean in its standard deviations, a spread as
a ratio of standard deviations.
"""

import math

MAX_SHIFT = 0.25
MIN_ERRORS = 4.0
MAX_SPREAD = 1.5
MIN_ROWS_OF_SPREAD = 100
# Of the rows.
MAX_UNSEEN = 0.05


def mean_has_drifted(shift: float, num_rows: float) -> bool:
    """Further than 0.25 deviations, and than four standard errors: few rows alone are no drift."""
    return abs(shift) > MAX_SHIFT and abs(shift) * math.sqrt(num_rows) > MIN_ERRORS


def spread_has_drifted(spread: float, num_rows: float) -> bool:
    """1.5 times as wide, or as narrow, in 100 rows or more."""
    wide = spread > MAX_SPREAD or spread < 1 / MAX_SPREAD
    return wide and num_rows >= MIN_ROWS_OF_SPREAD
