"""Checks for keys of the section `train` that exclude each other, by its names and values alone.

`reprise check` asks it too, so nothing here takes torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from stages.common.config import MissingKeyError, Overrides
from stages.common.errors import Problem, UserError, shorten, wrong_name
from stages.common.yamlfile import yaml_text
from stages.training.params import (
    NUM_CLASSES,
    Augment,
    CalibrationParams,
    Choice,
    ClassWeights,
    EnsembleMember,
    TrainParams,
)

# Optimizers for which a part of a matrix is not enough.
WHOLE = {
    "Adafactor": "it scales a step by sums over whole matrices",
    "LBFGS": "its directions are sums over all weights",
    "Muon": "it makes whole matrices orthogonal",
}

OF_MEMBERS = ("build.model.", "train.")
SHOWN = tuple(f"{start}*" for start in OF_MEMBERS)
NOT_OF_A_MEMBER = {
    "build.model.name": "only the file of the model that it names is a dependency",
    "train.objective.name": "only the file that it names is a dependency",
    "train.ensemble": "a member is one recipe",
    "train.calibration": "the mean is calibrated, not its members",
    **dict.fromkeys(("train.replicas", "train.folds"), "all members have the same"),
    **dict.fromkeys(("train.packed", "train.parallel"), "it is how all of them are trained"),
}


def check_calibration(
    params: CalibrationParams, task: str, num_classes: int | None = None
) -> list[Problem]:
    """Mistakes in the calibration: parts of it that the target does not have.

    None: the number of classes is not known.
    """
    problems, at = [], "train.calibration"
    if params.temperature and task == "regression":
        message = "a temperature is for the probabilities of classes, which regression has not"
        problems.append(Problem(message, f"{at}.temperature", "true", ("false",)))
    if params.threshold is not None:
        what = "it is regression" if task == "regression" else f"it has {num_classes} classes"
        if task == "regression" or num_classes not in (NUM_CLASSES, None):
            message = f"a threshold is for a target of two classes; {what}"
            problems.append(Problem(message, f"{at}.threshold", params.threshold, ("null",)))
    return problems


def check_class_weights(
    weights: ClassWeights | None, task: str, classes: Sequence[object] | None = None
) -> list[Problem]:
    """Mistakes in the class weights, by the target's classes (None: not known)."""
    at = "train.class_weights"
    if weights is None:
        return []
    if task == "regression":
        message = "class weights are for classes, which regression has not"
        return [Problem(message, at, str(weights), ("null",))]
    if isinstance(weights, str) or classes is None:
        return []
    names = [yaml_text(name) for name in classes]
    return [
        replace(
            wrong_name(f"the target has no class '{name}'", name, names, f"{at}.{name}"),
            value=f"{weight:g}",
        )
        for name, weight in weights.items()
        if name not in names
    ]


def check_averages(params: TrainParams) -> list[Problem]:
    """Mistakes in the averages of the weights: keys that exclude each other."""
    if params.swa is None:
        return []
    problems, at = [], "train.swa"
    if params.ema is not None:
        message = "there is one average of the weights to keep: train.ema or train.swa"
        problems.append(Problem(message, at, allowed=("null",)))
    if params.swa.start > params.epochs:
        message = f"the training has {params.epochs} epochs, so nothing would be averaged"
        problems.append(Problem(message, f"{at}.start", str(params.swa.start)))
    return problems


def check_parallel(params: TrainParams) -> list[Problem]:
    """Mistakes in keys that can't work on parts of the weights."""
    problems = []
    name = params.optimizer.name
    if params.parallel == "fsdp" and name in WHOLE:
        message = f"{name} can't be used with fsdp, which divides every weight: {WHOLE[name]}"
        problems.append(Problem(message, "train.parallel", "fsdp", ("ddp",)))
    if params.parallel == "fsdp" and params.compile is True:
        message = "fsdp gathers the weights between the blocks of a model, which is not compiled"
        problems.append(Problem(message, "train.compile", "true", ("auto", "false")))
    return problems


def check_folds(params: TrainParams, *, ordered: bool) -> list[Problem]:
    """Mistakes in the folds; `ordered`: rows follow one another in time."""
    if params.folds is None:
        return []
    problems, value = [], str(params.folds)
    if ordered:
        message = (
            "rows that follow one another in time (prepare.structure.time) have no folds: most of "
            "these would be predicted from later rows"
        )
        problems.append(Problem(message, "train.folds", value, ("null",)))
    if params.dataset is not None:
        message = "rows of a dataset of one's own can't be divided into folds"
        problems.append(Problem(message, "train.folds", value, ("null",)))
    return problems


def check_members(
    members: Sequence[EnsembleMember], check: Callable[[Overrides], object], at: str
) -> list[Problem]:
    """Mistakes in what the members of an ensemble set, each at its path below the key `at`.

    `check` raises UserError for overrides that make no valid recipe.
    """
    problems: list[Problem] = []
    for number, member in enumerate(members):
        key = f"{at}.{number}.set"
        known = len(problems)
        for path, value in member.set.items():
            if message := find_not_of_a_member(path):
                allowed = () if path.startswith(OF_MEMBERS) else SHOWN
                problems.append(Problem(message, f"{key}.{path}", shorten(value), allowed))
        if len(problems) > known:
            continue
        try:
            check(member.set)
        except UserError as error:
            problems += [_of_member(problem, number, member, key) for problem in error.problems]
        except MissingKeyError as error:
            problems.append(error.problem(f"{key}.{error.path}", member.set[error.path]))
    return problems


def find_not_of_a_member(path: str) -> str:
    """The reason why a member of an ensemble can't set `path`, in words; nothing if it can."""
    fixed = next((name for name in NOT_OF_A_MEMBER if f"{path}.".startswith(f"{name}.")), None)
    if path.startswith(OF_MEMBERS) and fixed is None:
        return ""
    reason = NOT_OF_A_MEMBER.get(fixed or "", "it is neither of the model nor of the training")
    return f"a member of the ensemble can't set '{path}': {reason}"


def _of_member(problem: Problem, number: int, member: EnsembleMember, key: str) -> Problem:
    """The problem at the path that the member sets, where it is of one."""
    at = f"{problem.key}."
    path = next((p for p in member.set if at.startswith(f"{p}.") or f"{p}.".startswith(at)), None)
    where, value = (key, None) if path is None else (f"{key}.{path}", shorten(member.set[path]))
    message = f"member {number} of the ensemble: {problem.message}"
    return Problem(message, where, value, problem.allowed, problem.suggestion)


def check_closure(params: TrainParams) -> list[Problem]:
    """Mistakes in keys that exclude an optimizer that evaluates the loss itself.

    The recipe has one.
    """
    problems, name = [], params.optimizer.name
    for key in ("clip_norm", "clip_value"):
        value = getattr(params, key)
        if value is not None:
            message = (
                f"{name} goes by how the loss falls along its gradient; a clipped one is of no loss"
            )
            problems.append(Problem(message, f"train.{key}", f"{value:g}", ("null",)))
    if params.precision == "fp16":
        message = (
            f"{name} compares the losses of a step, and fp16 takes steps until its factor fits"
        )
        problems.append(Problem(message, "train.precision", "fp16", ("auto", "fp32", "bf16")))
    return problems


def check_images(channels_last: Choice, augment: Augment | None) -> list[Problem]:
    """Mistakes in keys that ask for images, where there are none among the features."""
    problems = []
    if channels_last is True:
        message = "there is no image among the features whose channels could come last"
        problems.append(Problem(message, "train.channels_last", "true", ("auto", "false")))
    amounts = {} if augment is None else augment.model_dump(exclude={"noise"})
    for name, value in amounts.items():
        if value:
            verb = "cut out of" if name == "cutout" else name
            message = f"there is no image to {verb} among the features"
            problems.append(Problem(message, f"train.augment.{name}", f"{value:g}", ("0",)))
    return problems
