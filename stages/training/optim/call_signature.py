"""The part of a class's signature that YAML can express: its arguments, typed, as a pydantic model.

So `optimizer: {name: AdamW, lrr: 1e-3}` is an error before any work starts, with the arguments
that AdamW does take, and an editor completes them.
"""

import collections.abc
import functools
import inspect
import operator
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model

_PLAIN = (bool, int, float, str)


def arguments_model(
    target: type,
    hidden: Collection[str] = (),
    filled: Collection[str] = (),
    known: Mapping[str, Any] | None = None,
    bounds: Mapping[str, Any] | None = None,
) -> type[BaseModel]:
    """The arguments of `target(...)` as a model that forbids all others.

    Arguments named in `hidden`, and those whose type has no YAML form (tensors, callables,
    objects), are left out. Those in `filled` may be left to the run even if `target` has no
    default for them. `known` has types that say more than the signature does, `bounds` the fields
    of pydantic that hold the numbers of an argument. Read the result with
    `model_dump(exclude_unset=True)`.
    """
    hints = _hints(target) | dict(known or {})
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if name in hidden or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        annotation = _yaml_type(hints.get(name, type(parameter.default)))
        if annotation is None:
            continue
        annotation = _bound(annotation, (bounds or {}).get(name))
        required = parameter.default is parameter.empty and name not in filled
        # For editors to show; what the user leaves out is left to the class itself.
        default = parameter.default if isinstance(parameter.default, (*_PLAIN, tuple)) else None
        fields[name] = (annotation, ... if required else default)
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return create_model(target.__name__, __config__=config, **fields)


def _hints(target: type) -> dict[str, Any]:
    """The annotations of the constructor; those that name what is not there to import drop out.

    Torch imports some names of `collections.abc` for type checkers alone.
    """
    constructor = inspect.unwrap(target.__init__)  # type: ignore[misc]
    hints: dict[str, Any] = {}
    for name, annotation in getattr(constructor, "__annotations__", {}).items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints |= typing.get_type_hints(
                holder, constructor.__globals__, vars(collections.abc), include_extras=True
            )
        except NameError:
            hints[name] = object
    return hints


def _yaml_type(annotation: Any) -> Any:
    """The part of a type that YAML can say, or None. A pair in Python is a list of two in YAML."""
    if annotation in _PLAIN:
        return annotation
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return annotation
    if origin is Annotated:
        # Bounds, as pydantic writes them.
        inner = _yaml_type(parts[0])
        return None if inner is None else Annotated[(inner, *parts[1:])]
    if origin in (Union, types.UnionType):
        sayable = [part for part in map(_yaml_type, parts) if part is not None]
        if not sayable:
            return None
        return Union[(*sayable, *((None,) if type(None) in parts else ()))]
    if origin is tuple and parts and parts[-1] is not Ellipsis:
        inner = {_yaml_type(part) for part in parts}
        if len(inner) == 1 and None not in inner:
            size = Field(min_length=len(parts), max_length=len(parts))
            return Annotated[_list_of(inner.pop()), size]
    if origin in (list, Iterable) and parts:
        item = _yaml_type(parts[0])
        return None if item is None else _list_of(item)
    return None


def _bound(annotation: Any, field: Any) -> Any:
    """A type whose numbers, in a list too, are held by the bounds of `field`."""
    if annotation in (int, float):
        return annotation if field is None else Annotated[annotation, field]
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return Annotated[(_bound(parts[0], field), *parts[1:])]
    if origin is list:
        return _list_of(_bound(parts[0], field))
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, (_bound(part, field) for part in parts))
    return annotation


def _list_of(item: Any) -> Any:
    return list.__class_getitem__(item)
