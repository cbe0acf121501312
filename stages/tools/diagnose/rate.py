"""The learning rates at which the loss falls, and from where on it diverges."""

from collections.abc import Iterator

from stages.tools.diagnose.measured import Measured, training_of
from stages.tools.lr_range import measure as measure_rates

LOWEST, HIGHEST, NUM_STEPS = 1e-7, 10.0, 60
CAUSE = "the loss is not finite"


def measure() -> Iterator[Measured]:
    """Train with a rate that grows, as `python -m stages.tools.lr_range` does."""
    training = training_of()
    curve = measure_rates(training, LOWEST, HIGHEST, NUM_STEPS)
    now = training.params.optimizer.arguments.get("lr")
    is_now = "" if now is None else f"; train.optimizer.lr is {now:g}"
    if curve.diverges and len(curve.rates) <= 2:
        what = f"the loss is not finite at a rate of {LOWEST:g} either: the rate is not the reason"
        yield Measured("wrong", f"{what}; look at the rows, and at layers of your own", CAUSE)
        return
    end = f"diverges at {curve.rates[-1]:.2g}" if curve.diverges else "does not diverge up to 10"
    if curve.steepest is None:
        yield Measured("note", f"the loss falls at no rate, and {end}{is_now}")
        return
    best = curve.rates[curve.steepest]
    is_above = now is not None and now > curve.rates[-1]
    what = f"the loss falls fastest at a rate of {best:.1e} and {end}{is_now}"
    if is_above:
        yield Measured("note", what, CAUSE, (f"train.optimizer.lr: {best:.1e}",))
    else:
        yield Measured("ok", what)
