"""A name with the arguments of what it names, checked against `stages/params.schema.json`."""

import math
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from pipeline.deps.zoo_imports import DATASETS, ZOO, dataset_files, model_files
from stages.common.config import get_path
from stages.common.errors import Problem, UserError, shorten, wrong_name, wrong_value
from stages.common.files import md5, read_json
from stages.common.params import VERSIONS
from stages.common.yamlfile import read_yaml

SCHEMA = Path("stages/params.schema.json")
# Where a check makes it anew: a check writes nothing that git tracks.
OWN_SCHEMA = Path(".reprise/params.schema.json")
_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "null": "null",
}
# What a bound means: must ….
_BOUNDS = {
    "exclusiveMaximum": "be less than {:g}",
    "exclusiveMinimum": "be greater than {:g}",
    "maxItems": "have at most {} item{}",
    "maximum": "be at most {}",
    "minItems": "have at least {} item{}",
    "minimum": "be at least {}",
}


def read_schema() -> dict[str, Any]:
    """The schema; when what it was made from has changed, a new one from `.reprise/`.

    The new one is made once, which takes a few seconds. Raises UserError when it can't be: a
    file of the zoo with a mistake in it.
    """
    schema = _read(SCHEMA)
    if schema is not None:
        return schema
    print(f"note: {SCHEMA} is out of date for editors: 'reprise schema' writes it", file=sys.stderr)
    schema = _read(OWN_SCHEMA)
    if schema is None:
        command = [sys.executable, "-m", "stages.tools.params_schema", str(OWN_SCHEMA)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = "\n  ".join(done.stderr.strip().splitlines()[-4:])
            raise UserError(f"{SCHEMA} can't be made from the files of the zoo:\n  {reason}")
        schema = read_json(OWN_SCHEMA)
    assert schema is not None
    return schema


def _read(path: Path) -> dict[str, Any] | None:
    """The schema in a file, if it is there and up to date."""
    schema: dict[str, Any] = read_json(path) if path.exists() else {}
    return schema if _is_current(schema.get("x-sources", {})) else None


def _is_current(sources: Mapping[str, str]) -> bool:
    files = {path: digest for path, digest in sources.items() if path != "torch"}
    zoo = {str(path) for path in (*model_files(), *dataset_files())}
    return (
        zoo == {path for path in files if Path(path).parent in (ZOO, DATASETS)}
        and sources.get("torch") == str(read_yaml(VERSIONS).get("torch"))
        and all(Path(path).is_file() and md5(Path(path)) == d for path, d in files.items())
    )


def check_named(tree: Mapping[str, Any], at: str, schema: Mapping[str, Any]) -> list[Problem]:
    """Mistakes in `tree`, which stands at `at`: in its name, or in the name's arguments."""
    section, kind = at.split(".")
    part = get_path(schema, f"$defs.{section.title()}Params.properties.{kind}")
    assert isinstance(part, Mapping)
    # Of what may be null as well the name is the other case.
    part = part.get("anyOf", [part])[0]
    name = tree.get("name")
    if not isinstance(name, str):
        return []  # pydantic has said so
    names = part["properties"]["name"]["enum"]
    refused = part.get("x-refused", {})
    if name in refused:
        message = f"{name} can't be used as {at}: {refused[name]}"
        return [Problem(message, f"{at}.name", name, tuple(names))]
    if name not in names:
        problem = wrong_name(f"there is no {kind} '{name}'", name, [*names, *refused], f"{at}.name")
        return [Problem(problem.message, problem.key, name, tuple(names), problem.suggestion)]
    case = next(
        c["then"] for c in part["allOf"] if c["then"]["properties"]["name"]["const"] == name
    )
    validator = Draft202012Validator(schema).evolve(schema=case)
    found = [p for error in validator.iter_errors(tree) for p in _problems(error, name, at)]
    known_keys = {problem.key for problem in found}
    return found + [problem for problem in _not_finite(tree, at) if problem.key not in known_keys]


def _not_finite(node: object, at: str) -> Iterable[Problem]:
    """`.nan` and `.inf`, which JSON has not and so no bound of its schema refuses."""
    if isinstance(node, float) and not math.isfinite(node):
        yield wrong_value("be a finite number", at, node)
    elif isinstance(node, Mapping):
        for name, inner in node.items():
            yield from _not_finite(inner, f"{at}.{name}")
    elif isinstance(node, list):
        for index, inner in enumerate(node):
            yield from _not_finite(inner, f"{at}.{index}")


def _problems(error: ValidationError, name: str, at: str) -> Iterable[Problem]:
    key = ".".join([at, *map(str, error.absolute_path)])
    value = "null" if error.instance is None else shorten(error.instance)
    if error.validator == "additionalProperties":
        known = [word for word in error.schema["properties"] if word != "name"]
        for word in error.instance:
            if word not in error.schema["properties"]:
                found = wrong_name(f"{name} takes no '{word}'", word, known, f"{key}.{word}")
                yield replace(found, value=shorten(error.instance[word]))
    elif error.validator == "required":
        for word in error.validator_value:
            if word not in error.instance:
                yield Problem(f"{name} needs '{word}'", key=f"{key}.{word}")
    elif error.validator == "enum":
        allowed = [str(word) for word in error.validator_value]
        yield wrong_name(f"'{value}' is not allowed here", value, allowed, key)
    elif error.validator in ("type", "anyOf"):
        types = _type_names(error.schema)
        yield wrong_value(f"be {' or '.join(types)}", key, error.instance)
    elif error.validator in _BOUNDS:
        bound = error.validator_value
        must = _BOUNDS[error.validator].format(bound, "" if bound == 1 else "s")
        yield wrong_value(must, key, error.instance)
    else:
        yield Problem(error.message, key=key, value=value)


def _type_names(schema: Mapping[str, Any]) -> list[str]:
    parts = schema.get("anyOf", [schema])
    return [
        f"'{part['const']}'" if "const" in part else _TYPES.get(kind := str(part.get("type")), kind)
        for part in parts
    ]
