"""Typed sections of `params.yaml`: what they derive from, how they are checked and overridden.

Unknown keys and wrong types are errors, told in our words with the key to edit.
"""

import copy
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.common.errors import Problem, UserError, shorten, wrong_name

Model = TypeVar("Model", bound=BaseModel)
# Values by the path of their parameter: what tune tries, and what train takes from its winner.
Overrides = dict[str, Any]


class Section(BaseModel):
    """A part of `params.yaml`: frozen, strict about types, no unknown keys, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Named(BaseModel):
    """A name and the arguments of what it names: `{name: AdamW, lr: 1e-3}`.

    Which arguments are right depends on the name, so whoever resolves the name checks them.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments, without the name."""
        return dict(self.model_extra or {})


def validate(model: type[Model], tree: object, at: str, file: str = "params.yaml") -> Model:
    """`tree`, the part of `file` under the key `at`, as a `model`.

    Raises UserError with all that is wrong in it.
    """
    problems, section = validate_all(model, tree, at, file)
    if section is None:
        raise UserError(*problems)
    return section


def validate_all(
    model: type[Model], tree: object, at: str, file: str = "params.yaml"
) -> tuple[list[Problem], Model | None]:
    """As `validate`, but hands the problems back, for who collects those of a whole file."""
    try:
        return [], model.model_validate(tree)
    except ValidationError as error:
        return [_problem(model, tree, dict(e), at, file) for e in error.errors()], None


def _problem(
    model: type[BaseModel], tree: object, error: dict[str, Any], at: str, file: str
) -> Problem:
    location = _location(tree, error["loc"], error["type"])
    key = ".".join(part for part in (at, *location) if part)
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known = _field_names(model, error["loc"][:-1])
        problem = wrong_name(f"unknown key '{location[-1]}'", location[-1], known, key)
        return Problem(
            problem.message,
            key,
            shorten(error["input"]),
            problem.allowed,
            problem.suggestion,
            file,
        )
    if kind == "missing":
        return Problem(f"the key '{key}' is missing", key=key, file=file)
    value = "null" if error["input"] is None else shorten(error["input"])
    if kind == "literal_error":
        allowed = tuple(
            part.strip().strip("'") for part in context["expected"].replace(" or ", ",").split(",")
        )
        named = wrong_name(f"'{value}' is not allowed here", value, allowed, key)
        return Problem(named.message, key, value, allowed, named.suggestion, file)
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return Problem(message, key=key, value=value, file=file)


def _location(tree: object, parts: tuple[str | int, ...], kind: str) -> tuple[str, ...]:
    """`parts` as keys of the file, without the tags of unions, which pydantic puts between."""
    found: list[str] = []
    node: Any = tree
    for part in parts:
        in_list = isinstance(node, list) and isinstance(part, int)
        if in_list or (isinstance(node, Mapping) and part in node):
            node = node[part]
        elif not (kind == "missing" and part is parts[-1]):
            continue
        found.append(str(part))
    return tuple(found)


def _field_names(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The fields of the model that stands at `location` inside `model`."""
    inner: type[BaseModel] | None = model
    for part in location:
        # A part that is no field: a key of a map of models, or the tag of a union.
        field = inner.model_fields.get(str(part)) if inner is not None else None
        if field is not None:
            inner = _model_in(field.annotation)
    return list(inner.model_fields) if inner is not None else []


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The first model inside a type: of a union, a list, a map."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in typing.get_args(annotation))
    return next((model for model in found if model is not None), None)


def subtree(tree: object, key: str) -> Mapping[str, Any] | object:
    """What stands under the dotted `key` of `tree`. Raises KeyError when nothing does."""
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            raise KeyError(key)
        tree = tree[part]
    return tree


def apply_overrides(
    tree: Mapping[str, Any], overrides: Mapping[str, Any], section: str
) -> dict[str, Any]:
    """A copy of `tree`, the section `section`, with the overrides of that section set.

    Paths start with the section's name: `train.optimizer.lr`. Those of other sections are left.
    """
    changed = copy.deepcopy(dict(tree))
    for path, value in overrides.items():
        first, *parents, last = path.split(".")
        if first != section:
            continue
        node = changed
        for parent in parents:
            node = node[parent]
        node[last] = value
    return changed
