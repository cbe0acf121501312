"""Typed sections of `params.yaml`: what they derive from, how they are checked and overridden.

Unknown keys and wrong types are errors, told in the project's words with the key to edit.
"""

import copy
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.common.addresses import find_fault, is_object
from stages.common.counts import either
from stages.common.errors import (
    Problem,
    UserError,
    did_you_mean,
    shorten,
    wrong_name,
    wrong_value,
)
from stages.common.yamlfile import yaml_text

Model = TypeVar("Model", bound=BaseModel)
# Values by the path of their parameter: what tune tries, and what train takes from its best trial.
Overrides = dict[str, Any]
# One of these values, as `params.yaml` has it.
Value = bool | int | float | str | list[int] | list[float] | None
# The largest that NumPy's generators take, and so Optuna's; torch's take it too.
MAX_SEED = 2**32 - 1
# The largest number of float32, in which a model computes; and of what is counted one by one.
MAX_NUMBER = 3.4e38
MAX_COUNT = 1_000_000_000
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]

# What each of pydantic's complaints about a type and about a bound means: must be ….
_TYPES = {
    "bool_type": "true or false",
    "dict_type": "keys with values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "keys with values",
    "none_required": "null",
    "string_type": "a text",
}
_BOUNDS = {
    "greater_than": "be greater than {gt:g}",
    "greater_than_equal": "be at least {ge:g}",
    "less_than": "be less than {lt:g}",
    "less_than_equal": "be at most {le:.10g}",
    "string_too_short": "not be empty",
    "too_long": "have at most {max_length} items",
    "too_short": "have at least {min_length} item{s}",
}
# As YAML writes them.
_BOOLEANS = {"True": "true", "False": "false"}


class Config(BaseModel):
    """A part of `params.yaml`: frozen, strict about types, no unknown keys, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ClassSpec(BaseModel):
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
    """Validate as `validate` does, but hand the problems back, to collect those of a whole file."""
    try:
        return [], model.model_validate(tree)
    except ValidationError as error:
        return list(_problems(model, tree, map(dict, error.errors()), at, file)), None


def check_seed(value: object) -> Problem | None:
    """The mistake in the seed of `params.yaml`, if there is one."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SEED:
        return None
    return wrong_value(f"be a whole number from 0 to {MAX_SEED}", "seed", value)


def _problems(
    model: type[BaseModel], tree: object, errors: Iterable[dict[str, Any]], at: str, file: str
) -> Iterable[Problem]:
    """One problem for each place, though pydantic complains once for each type of a union."""
    places: dict[str, list[dict[str, Any]]] = {}
    for error in errors:
        location = _location(tree, error["loc"], error["type"])
        places.setdefault(".".join(part for part in (at, *location) if part), []).append(error)
    for key, found in places.items():
        within = any(other.startswith(f"{key}.") for other in places)
        if within and isinstance(found[0]["input"], Mapping):
            # It is the form with keys that was meant, and what is wrong in it is said there.
            continue
        if not all(error["type"] in _TYPES for error in found):
            yield from (_problem(model, e, key, file) for e in found if e["type"] not in _TYPES)
        elif not within:
            yield _wrong_type(model, found, key, file)


def _wrong_type(
    model: type[BaseModel], found: list[dict[str, Any]], key: str, file: str
) -> Problem:
    kinds = list(dict.fromkeys(_TYPES[error["type"]] for error in found))
    if "a number" in kinds and "a whole number" in kinds:
        kinds.remove("a whole number")
    first = found[0]
    fields: list[str] = []
    if first["type"] == "model_type":
        fields = _field_names(model, first["loc"])
        if first["ctx"]["class_name"] == ClassSpec.__name__:
            kinds, fields = ["a name with its arguments: {name: …, …}"], []
    return wrong_value(f"be {' or '.join(kinds)}", key, first["input"], file, fields)


def _problem(model: type[BaseModel], error: dict[str, Any], key: str, file: str) -> Problem:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known, name = _field_names(model, error["loc"][:-1]), str(error["loc"][-1])
        problem = wrong_name(f"unknown key '{name}'", name, known, key)
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
        parts = context["expected"].replace(" or ", ",").split(",")
        allowed = tuple(_BOOLEANS.get(part.strip(), part.strip().strip("'")) for part in parts)
        named = wrong_name(f"'{value}' is not allowed here", value, allowed, key)
        return Problem(named.message, key, value, allowed, named.suggestion, file)
    if kind in _BOUNDS:
        plural = either(context.get("min_length", 0), "", "s")
        must, allowed = _BOUNDS[kind].format(**context, s=plural), _allowed(model, error["loc"])
        return wrong_value(must, key, error["input"], file, allowed)
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    source = error["input"]
    if isinstance(source, str) and is_object(source) and find_fault(source):
        # What stands there may be a password in a place where nobody looks for one.
        return Problem(message, key=key, file=file)
    return Problem(message, key=key, value=value, file=file)


def _location(tree: object, parts: tuple[str | int, ...], kind: str) -> tuple[str, ...]:
    """`parts` as keys of the file, without the tags of unions, which pydantic puts between."""
    found: list[str] = []
    node: Any = tree
    for part in parts:
        if isinstance(node, Mapping):
            # What YAML reads as a number or a boolean may be meant as a name (`{3: 2.0}`).
            key = next((k for k in node if yaml_text(k) == part), part)
            found_here = key in node
        else:
            key, found_here = part, isinstance(node, list) and isinstance(part, int)
        if found_here:
            node = node[key]
        elif not (kind == "missing" and part is parts[-1]):
            continue
        found.append(str(part))
    return tuple(found)


def _allowed(model: type[BaseModel], location: tuple[str | int, ...]) -> tuple[str, ...]:
    """The range of the numbers that a field may have beside null; nothing of other fields."""
    inner: type[BaseModel] | None = model
    for part in location[:-1]:
        field = inner.model_fields.get(str(part)) if inner is not None else None
        inner = None if field is None else _model_in(field.annotation)
    field = inner.model_fields.get(str(location[-1])) if inner is not None else None
    kinds = () if field is None else typing.get_args(field.annotation)
    if type(None) not in kinds:
        return ()
    infos = [info for kind in kinds for info in typing.get_args(kind)[1:]]
    known = [each for info in infos for each in getattr(info, "metadata", ())]
    bounds = {n: getattr(each, n) for each in known for n in ("ge", "le") if hasattr(each, n)}
    return (f"{bounds['ge']:.10g} to {bounds['le']:.10g}", "null") if len(bounds) == 2 else ()


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


def get_path(tree: object, key: str) -> Mapping[str, Any] | object:
    """The value under the dotted `key` of `tree`. Raises KeyError where there is none."""
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
    Raises MissingKeyError where there is nothing that a key could be below.
    """
    changed = copy.deepcopy(dict(tree))
    for path, value in overrides.items():
        first, *parents, last = path.split(".")
        if first != section:
            continue
        node: Any = changed
        for place, parent in enumerate(parents, start=1):
            if parent not in node:
                raise MissingKeyError(path, place, node)
            node = node[parent]
            if not isinstance(node, dict):
                raise MissingKeyError(path, place + 1, ())
        node[last] = value
    return changed


@final
class MissingKeyError(LookupError):
    """A dotted key that can't be set, since what it would be below is not there."""

    def __init__(self, path: str, place: int, known: Iterable[str]) -> None:
        """`known` are the names that could stand at `place` of the path, counted from 0."""
        super().__init__(path)
        self.path = path
        parts = path.split(".")
        near = did_you_mean(parts[place], known)
        self.suggestion = near and ".".join([*parts[:place], near, *parts[place + 1 :]])

    def problem(self, key: str, value: object = None) -> Problem:
        """The problem of the place `key` of a file, where this key and its value are named."""
        shown = None if value is None else shorten(value)
        message = f"there is no parameter '{self.path}'"
        return Problem(message, key, shown, suggestion=self.suggestion)
