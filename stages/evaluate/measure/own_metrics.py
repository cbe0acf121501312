"""Metrics of one's own: the functions of `stages/zoo/metrics.py`, each by its name."""

import inspect
from collections.abc import Callable
from types import ModuleType

import numpy as np
import numpy.typing as npt

from stages.common.errors import Problem
from stages.common.user_code import own_errors, problem_of
from stages.evaluate.measure.predictions import Predicted, codes_of, probabilities_of, values_of

HOME = "stages/zoo/metrics.py"
# What the second argument may be called: its task, and what it is given of a prediction.
GIVEN: dict[str, tuple[str, Callable[[Predicted], npt.NDArray[np.generic]]]] = {
    "classes": ("classification", codes_of),
    "probabilities": ("classification", probabilities_of),
    "values": ("regression", values_of),
}


def own_metrics(task: str) -> dict[str, Callable[..., float]]:
    """The metrics of one's own for a task, called as the others are.

    Raises UserError, with the line, for a function that can't be one.
    """
    found = {}
    for name, function in _functions(_load()).items():
        of_task, take = GIVEN[_given(name, function)]
        if of_task == task:
            found[name] = _wrapped(name, function, take)
    return found


def own_less_is_better() -> frozenset[str]:
    """Those of which less is better. Raises UserError when one of them is no metric."""
    module = _load()
    named = frozenset(getattr(module, "LESS_IS_BETTER", ()))
    if unknown := sorted(named - _functions(module).keys()):
        message = f"{HOME}: LESS_IS_BETTER names '{unknown[0]}', and there is no such function"
        raise problem_of(message, None, Problem(message))
    return named


def own_function(name: str) -> Callable[..., float] | None:
    """The function of a metric of one's own; None: it is another metric."""
    return _functions(_load()).get(name)


def takes_weights(metric: Callable[..., float]) -> bool:
    """Check whether a metric of one's own knows weights of rows."""
    return "sample_weight" in inspect.signature(metric).parameters


def _load() -> ModuleType:
    # Not at the top: a mistake in it would end a stage before it can bring its outputs back.
    with own_errors("the metrics of one's own can't be loaded"):
        import stages.zoo.metrics
    return stages.zoo.metrics


def _functions(module: ModuleType) -> dict[str, Callable[..., float]]:
    """The functions that a file defines; what it has only imported is none of them."""
    return {
        name: member
        for name, member in vars(module).items()
        if inspect.isfunction(member)
        and member.__module__ == module.__name__
        and not name.startswith("_")
    }


def _given(name: str, function: Callable[..., float]) -> str:
    """The name of the second argument, which says what a metric is given."""
    arguments = list(inspect.signature(function).parameters)
    if len(arguments) < 2 or arguments[1] not in GIVEN:
        message = f"the second argument of the metric '{name}' must be {', '.join(GIVEN)}"
        raise problem_of(message, function, Problem(f"{HOME}: {message}", allowed=tuple(GIVEN)))
    return arguments[1]


def _wrapped(
    name: str,
    function: Callable[..., float],
    take: Callable[[Predicted], npt.NDArray[np.generic]],
) -> Callable[..., float]:
    if not takes_weights(function):

        def plain(target: npt.NDArray[np.generic], predicted: Predicted) -> float:
            with own_errors(f"the metric '{name}' fails", function):
                return float(function(target, take(predicted)))

        return plain

    def weighed(
        target: npt.NDArray[np.generic],
        predicted: Predicted,
        sample_weight: npt.NDArray[np.float64] | None = None,
    ) -> float:
        with own_errors(f"the metric '{name}' fails", function):
            return float(function(target, take(predicted), sample_weight=sample_weight))

    return weighed
