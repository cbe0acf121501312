"""A stage's view of `params.yaml`: only the keys that `dvc.yaml` declares for it.

What a stage could read without declaring it would change its outputs without a rerun; so it
can't read it.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from stages.common.addresses import is_object
from stages.common.config import check_seed, get_path, validate
from stages.common.errors import Problem, UserError
from stages.common.yamlfile import read_yaml

PARAMS = Path("params.yaml")
VERSIONS = Path("stages/versions.yaml")
DVC_FILE = Path("dvc.yaml")
TEMPLATE = re.compile(r"\$\{([^}]+)\}")

Model = TypeVar("Model", bound=BaseModel)


class Params:
    """The declared part of `params.yaml`, section by section, typed and validated."""

    def __init__(self, stage: str, tree: Mapping[str, Any]) -> None:
        self._stage = stage
        self._tree = tree

    @property
    def seed(self) -> int:
        """The seed of weights and order."""
        seed = self._part("seed")
        problem = check_seed(seed)
        if problem is not None:
            raise UserError(problem)
        assert isinstance(seed, int)
        return seed

    def section(self, name: str, model: type[Model], **known: object) -> Model:
        """The section `name` as a `model`; `known` adds keys that the stage knows better.

        Raises UserError with every mistake in the section.
        """
        part = self._part(name)
        if known and isinstance(part, Mapping):
            part = {**part, **known}
        return validate(model, part, at=name)

    def part(self, name: str) -> Mapping[str, Any]:
        """The declared part of section `name` as it stands in the file."""
        part = self._part(name)
        assert isinstance(part, Mapping)
        return part

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Compare with values by their dotted keys, as a snapshot has them."""
        return all(to_plain(get_path(self._tree, key)) == value for key, value in values.items())

    def _part(self, name: str) -> object:
        assert name in self._tree, (
            f"stage '{self._stage}' reads '{name}', which dvc.yaml does not declare for it"
        )
        return self._tree[name]


def to_plain(value: object) -> Any:
    """`value` as JSON keeps it, so that it equals what another process has read or written."""
    return json.loads(json.dumps(value, default=str))


def stage_entry(stage: str) -> dict[str, Any]:
    """The entry of `stage` in `dvc.yaml`, with `${...}` as it stands there."""
    entry = get_path(read_yaml(DVC_FILE), f"stages.{stage}")
    assert isinstance(entry, dict)
    return entry


def declared(stage: str, file: Path) -> list[str]:
    """The keys of `file` that `dvc.yaml` lists under `params:` of `stage`."""
    keys: list[str] = []
    for entry in stage_entry(stage)["params"]:
        if isinstance(entry, str) and file == PARAMS:
            keys.append(entry)
        elif isinstance(entry, Mapping):
            keys += entry.get(str(file)) or []
    return keys


def declared_deps(stage: str) -> list[Path]:
    """The paths that `dvc.yaml` lists under `deps:` of `stage`, with `${...}` filled in."""
    return [Path(name) for name, _ in _names(stage, "deps") if not is_object(name)]


def declared_objects(stage: str) -> list[tuple[str, str | None]]:
    """The addresses in object storage under `deps:` of `stage`, each with the key that names it."""
    return [(name, key) for name, key in _names(stage, "deps") if is_object(name)]


def declared_outs(stage: str) -> list[Path]:
    """The paths that `stage` writes: its outputs, metrics and plots."""
    kinds = ("outs", "metrics", "plots")
    return [Path(name) for kind in kinds for name, _ in _names(stage, kind)]


def _names(stage: str, kind: str) -> list[tuple[str, str | None]]:
    """The paths and addresses of a kind, with the key of `params.yaml` that each begins with."""
    tree = {**read_variables(read_yaml(DVC_FILE)), **read_tree()}
    # A path with options (`cache: false`) is a mapping of one key.
    listed = [
        next(iter(e)) if isinstance(e, Mapping) else e for e in stage_entry(stage).get(kind, [])
    ]
    # As DVC does it; a null becomes the text None.
    try:
        names = [TEMPLATE.sub(lambda m: str(get_path(tree, m[1])), name) for name in listed]
    except KeyError as error:
        key = str(error.args[0])
        message = f"the key '{key}' is missing, which dvc.yaml names a path by"
        raise UserError(Problem(message, key=key)) from None
    firsts = [TEMPLATE.match(name) for name in listed]
    keys = [None if first is None else first[1] for first in firsts]
    return list(zip(names, keys, strict=True))


def read_tree() -> Mapping[str, Any]:
    """The content of `params.yaml`. Raises UserError when it holds no keys, or no YAML."""
    tree = read_yaml(PARAMS)
    if not isinstance(tree, Mapping):
        raise UserError(f"{PARAMS} holds no keys: it is empty, or was being written just now")
    return tree


def read_variables(pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """The values that `dvc.yaml` itself gives under `vars:`."""
    entries = [entry for entry in pipeline.get("vars") or [] if isinstance(entry, Mapping)]
    return {name: value for entry in entries for name, value in entry.items()}


def read_params(stage: str) -> Params:
    """The parameters of `stage` in `params.yaml`.

    Raises UserError when the file is no YAML or a declared key is not in it.
    """
    tree = read_tree()
    cut: dict[str, Any] = {}
    missing: list[Problem] = []
    for key in declared(stage, PARAMS):
        try:
            value = get_path(tree, key)
        except KeyError:
            missing.append(Problem(f"the key '{key}' is missing", key=key))
            continue
        *parents, last = key.split(".")
        node = cut
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    if missing:
        raise UserError(*missing)
    return Params(stage, cut)
