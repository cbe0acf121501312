"""The usual metrics under their usual names, from scikit-learn.

Classification metrics take class codes (rows,) and what is predicted, classes with probabilities;
regression metrics take values (rows,) in the target's units. All return one number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from stages.common.errors import Problem, UserError, did_you_mean
from stages.common.files import rounded
from stages.common.user_code import problem_of
from stages.evaluate.measure.own_metrics import own_function, own_less_is_better, own_metrics
from stages.evaluate.measure.predictions import Predicted, codes_of, probabilities_of
from stages.evaluate.measure.row_weights import find_counting
from stages.evaluate.measure.weighted_metrics import PINBALL, Codes, Floats, calibration_error

# Of all others, more is better.
LESS_IS_BETTER = frozenset(
    (
        *("log_loss", "brier", "ece"),
        *("rmse", "mae", "median_absolute_error", "max_error", "mape"),
        *PINBALL,
    )
)
# Those of the second of two classes.
NUM_CLASSES = 2
OF_TWO = ("f1", "precision", "recall")


def compute_metrics(
    names: list[str],
    task: str,
    target: npt.NDArray[np.generic],
    predicted: Predicted,
    weights: Floats | None = None,
) -> dict[str, float]:
    """The metrics `names` in that order.

    `target` (rows,) are class codes or values; `predicted` are classes with probabilities, or
    values (rows,). What counts right and wrong rows goes by the predicted class, what judges
    probabilities by these. `weights` (rows,) say how much a row counts; None: all the same. Raises
    UserError for names that the task doesn't have.
    """
    known = metrics_of(task)
    problems = []
    for index, name in enumerate(names):
        if name not in known:
            key = f"evaluate.metrics.{index}"
            message = f"there is no metric '{name}' for {task}"
            problems.append(Problem(message, key, name, tuple(known), did_you_mean(name, known)))
        elif name in OF_TWO and probabilities_of(predicted).shape[1] != NUM_CLASSES:
            key = f"evaluate.metrics.{index}"
            message = (
                f"{name} is that of the second of two classes; "
                f"the target has {probabilities_of(predicted).shape[1]}"
            )
            allowed = tuple(other for other in known if other.startswith(f"{name}_"))
            problems.append(Problem(message, key, name, allowed))
    if problems:
        raise UserError(*problems)
    if weights is None:
        return {name: rounded(float(known[name](target, predicted))) for name in names}
    rows = find_counting(weights)
    target, predicted, weights = target[rows], predicted[rows], weights[rows]
    found = {}
    for index, name in enumerate(names):
        try:
            value = known[name](target, predicted, sample_weight=weights)
        except TypeError as error:
            if "sample_weight" not in str(error):
                raise
            message = f"{name} takes no weights of rows (sample_weight), which prepare.weight gives"
            raise UserError(Problem(message, f"evaluate.metrics.{index}", name)) from None
        found[name] = rounded(float(value))
    return found


def check_defined(found: Sequence[Mapping[str, float]]) -> None:
    """Raise UserError for metrics that are no finite number for some prediction of the test rows.

    Such are a ROC AUC where a class has no row, or an R² of one row. `found` is what
    `compute_metrics` has given, one for each prediction.
    """
    problems: list[Problem] = []
    for index, name in enumerate(found[0]):
        wrong = [values[name] for values in found if not math.isfinite(values[name])]
        if wrong:
            problems += _undefined(name, wrong[0], f"evaluate.metrics.{index}").problems
    if problems:
        raise UserError(*problems)


def _undefined(name: str, value: float, key: str) -> UserError:
    """The error of a metric that is nan or inf on the test rows."""
    function = own_function(name)
    if function is not None:
        message = f"the metric '{name}' gives {value} on the test rows, and must be a finite number"
        return problem_of(message, function, Problem(message, key, name))
    message = (
        f"{name} has no value on these test rows: they are too few, or lack a class; "
        "leave it out, or make prepare.split.test larger"
    )
    if math.isinf(value):
        message = f"{name} is {value} on these test rows, and must be a finite number; leave it out"
    return UserError(Problem(message, key, name))


def metrics_of(task: str) -> dict[str, Callable[..., float]]:
    """All metrics of a task by name, those of `stages/zoo/metrics.py` last.

    Raises UserError when one of these has the name of another.
    """
    known, own = _classification() if task == "classification" else _regression(), own_metrics(task)
    if doubled := sorted(known.keys() & own.keys()):
        raise UserError(f"stages/zoo/metrics.py: there is a metric '{doubled[0]}' already")
    return known | own


def less_is_better(name: str) -> bool:
    """Check which way a metric is better."""
    return name in LESS_IS_BETTER or name in own_less_is_better()


def _regression() -> dict[str, Callable[..., float]]:
    from sklearn import metrics as sk

    return {
        "rmse": sk.root_mean_squared_error,
        "mae": sk.mean_absolute_error,
        "median_absolute_error": sk.median_absolute_error,
        # The largest of the rows that count, however much.
        "max_error": lambda y, p, **_: sk.max_error(y, p),
        "mape": sk.mean_absolute_percentage_error,
        # Of what a value should have below it a share of the rows, such as 90 %.
        **{name: partial(sk.mean_pinball_loss, alpha=share) for name, share in PINBALL.items()},
        "r2": sk.r2_score,
        "explained_variance": sk.explained_variance_score,
    }


def _classification() -> dict[str, Callable[..., float]]:
    from sklearn import metrics as sk

    def on_classes(metric: Callable[..., float], **options: object) -> Callable[..., float]:
        return lambda y, predicted, **of_rows: metric(y, codes_of(predicted), **options, **of_rows)

    def on_probabilities(metric: Callable[..., float]) -> Callable[..., float]:
        return lambda y, predicted, **of_rows: metric(y, probabilities_of(predicted), **of_rows)

    return {
        "accuracy": on_classes(sk.accuracy_score),
        "balanced_accuracy": on_classes(sk.balanced_accuracy_score),
        "f1": on_classes(sk.f1_score, zero_division=0.0),
        "f1_micro": on_classes(sk.f1_score, average="micro", zero_division=0.0),
        "f1_macro": on_classes(sk.f1_score, average="macro", zero_division=0.0),
        "f1_weighted": on_classes(sk.f1_score, average="weighted", zero_division=0.0),
        "precision": on_classes(sk.precision_score, zero_division=0.0),
        "precision_macro": on_classes(sk.precision_score, average="macro", zero_division=0.0),
        "recall": on_classes(sk.recall_score, zero_division=0.0),
        "recall_macro": on_classes(sk.recall_score, average="macro", zero_division=0.0),
        "matthews_corrcoef": on_classes(sk.matthews_corrcoef),
        "cohen_kappa": on_classes(sk.cohen_kappa_score),
        "log_loss": on_probabilities(
            lambda y, p, **w: sk.log_loss(y, p, labels=np.arange(p.shape[1]), **w)
        ),
        # Of two classes the squared error of one probability, of more the sum over all.
        "brier": on_probabilities(
            lambda y, p, **w: sk.brier_score_loss(y, p, labels=np.arange(p.shape[1]), **w)
        ),
        "ece": on_probabilities(
            lambda y, p, **w: calibration_error(p.argmax(axis=1) == y, p.max(axis=1), **w)
        ),
        "roc_auc": on_probabilities(_roc_auc),
        "average_precision": on_probabilities(
            lambda y, p, **w: sk.average_precision_score(
                np.eye(p.shape[1])[y][:, 1:] if p.shape[1] == 2 else np.eye(p.shape[1])[y],
                p[:, 1:] if p.shape[1] == 2 else p,
                **w,
            )
        ),
    }


def _roc_auc(target: Codes, probabilities: Floats, **w: Floats) -> float:
    """Area under the ROC curve; of several classes, the mean of each against the rest."""
    from sklearn.metrics import roc_auc_score

    if probabilities.shape[1] == 2:
        return float(roc_auc_score(target, probabilities[:, 1], **w))
    labels = np.arange(probabilities.shape[1])
    return float(roc_auc_score(target, probabilities, multi_class="ovr", labels=labels, **w))
