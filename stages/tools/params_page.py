"""`docs/params.md`: every key of `params.yaml`, from the types and docstrings of its sections.

`reprise schema` writes it, and `reprise schema --check` tells when it is out of date. What a key is
for stands in the docstring under its field; which stages it reruns, in `dvc.yaml`.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stages.common.config import MAX_COUNT, Config
from stages.common.params import DVC_FILE
from stages.common.yamlfile import read_yaml
from stages.tools.params_links import MORE

PAGE = Path("docs/params.md")
LISTED = {"loss": "Losses", "optimizer": "Optimizers", "schedule": "Schedules"}
STAGES = ("prepare", "build", "tune", "train", "evaluate", "infer")
HEAD = """<!-- Written by `reprise schema`: edit the docstrings of the sections, not this page. -->

# params.yaml, key by key

Every key stands in `params.yaml`; arguments beside a name may be left out, and have the default \
that stands here or in their class. `reprise check` validates the \
whole file in about a second, and an unknown key is an error. Editors complete the file from \
`stages/params.schema.json`.

After an edit, `dvc repro` runs the stages that the last column names. Those that follow the first \
of them run only if what they read has changed; `reprise plan` says it for the edit at hand.

[seed](#seed) · [prepare](#prepare) · [build](#build) · [tune](#tune) · [train](#train) · \
[evaluate](#evaluate) · [infer](#infer) · \
[What is not in params.yaml](#what-is-not-in-paramsyaml)

## seed

A whole number from 0 to 4,294,967,295: the seed of first weights, of the order of the rows, and \
of all else that is drawn. Reruns {seed}; which row is in which split is `prepare.split.seed`.
"""
TAIL = """
## What is not in params.yaml

| what | where | what it reruns |
|---|---|---|
| the version of a library | `constraints.txt`, then `make setup` and `reprise deps` ([more]\
(cache.md#libraries)) | the stages that import it |
| what the table must be like | the file of `prepare.expectations` | prepare, and what its result \
changes |
| device, processes, threads, data that do not fit the memory | the environment: `REPRISE_DEVICE`, \
`PET_NPROC_PER_NODE`, `REPRISE_THREADS`, `REPRISE_AT_ONCE`, `REPRISE_DATA` ([more]\
(training.md#what-the-machine-decides)) | nothing |
| several machines, SLURM, Kubernetes | the environment: `PET_NNODES`, `PET_RDZV_ENDPOINT` \
([more](scale.md)) | nothing |
| the database where several machines share a search | the environment: `REPRISE_STUDY` ([more]\
(tuning.md#several-machines)) | nothing |
| who else is told how a training goes | the environment: `REPRISE_LOGGERS=mlflow,wandb` \
([more](training.md#loggers)) | nothing |
"""


def make_page(schema: Mapping[str, Any], sections: Mapping[str, Any]) -> str:
    """The page. `schema` is that of `params.yaml`; `sections` has the types without names."""
    reruns = Reruns(read_yaml(DVC_FILE)["stages"])
    parts = [HEAD.format(seed=reruns.of("seed"))]
    for stage in STAGES:
        name = sections["properties"][stage]["$ref"].split("/")[-1]
        section = sections["$defs"][name]
        parts.append(f"\n## {stage}\n\n{_sentence(section)}\n")
        rows = [
            [
                f"`{key}`",
                takes,
                f"{what}{_more(key)}",
                reruns.of(key) if key.count(".") == 1 else "",
            ]
            for key, takes, what in _rows(section, stage, sections["$defs"])
        ]
        parts.append(_table(["key", "takes", "what it does", "reruns"], rows))
        parts += _names(stage, schema)
    return "".join(parts) + TAIL


class Reruns:
    """Which stages an edit of a key reruns, as `dvc.yaml` declares keys and files."""

    def __init__(self, stages: Mapping[str, Any]) -> None:
        self._keys = {
            stage: [key for key in stages[stage]["params"] if isinstance(key, str)]
            for stage in STAGES
        }
        self._reads = {
            stage: {str(dep).split("/")[1] for dep in stages[stage]["deps"] if "data/" in str(dep)}
            for stage in STAGES
        }

    def of(self, key: str) -> str:
        """The stages, in words."""
        found: list[str] = []
        for stage in STAGES:
            reads = any(f"{key}.".startswith(f"{known}.") for known in self._keys[stage])
            if reads or self._reads[stage] & set(found):
                found.append(stage)
        return "everything" if found == list(STAGES) else ", ".join(found) or "nothing"


def _rows(
    section: Mapping[str, Any], at: str, parts: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Key, what it takes and what it does, of a section and of those inside it."""
    for name, field in section["properties"].items():
        key = f"{at}.{name}"
        default = "" if "default" not in field else f"; else {_value(field['default'])}"
        yield key, _takes(field, parts) + default, field.get("description", "")
        inside: list[tuple[str, str, str]] = []
        for inner, place in _inner(field):
            if inner != "ClassSpec":
                inside += _rows(parts[inner], f"{key}{place}", parts)
        # Of two forms that share a key, the first one says what it is.
        yield from reversed({row[0]: row for row in reversed(inside)}.values())


def _inner(field: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The sections inside a field, and how their place is written: of a list, of a map."""
    if "$ref" in field:
        yield field["$ref"].split("/")[-1], ""
    for case in (*field.get("anyOf", ()), *field.get("oneOf", ())):
        yield from _inner(case)
    for key, place in (("items", "[…]"), ("additionalProperties", ".NAME")):
        if isinstance(field.get(key), Mapping):
            yield from ((inner, f"{place}{below}") for inner, below in _inner(field[key]))


def _takes(field: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """The values of a field, in words."""
    cases = (*field.get("anyOf", ()), *field.get("oneOf", ()))
    if cases:
        words = list(dict.fromkeys(_takes(case, parts) for case in cases))
        if {"whole number", "number"} <= {*words}:
            words.remove("whole number")
        return ", or ".join(words)
    if "$ref" in field:
        name = field["$ref"].split("/")[-1]
        return "a name with its arguments" if name == "ClassSpec" else "the keys below"
    if "enum" in field or "const" in field:
        return ", ".join(_value(value) for value in field.get("enum", [field.get("const")]))
    kind = field.get("type")
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _bounds(field)
    if kind == "array":
        # Of more kinds than two the key's own words say enough.
        any_value = len(field["items"].get("anyOf", ())) > 2
        return (
            "list of values" if any_value else f"list of {_plural(_takes(field['items'], parts))}"
        )
    if kind == "object":
        of_each = field["additionalProperties"]
        return "keys" if of_each is True else f"names, each with {_takes(of_each, parts)}"
    return {"null": "`null`", "boolean": "`true`, `false`", "string": "text"}[str(kind)]


def _plural(words: str) -> str:
    return {"text": "texts", "the keys below": "entries with the keys below"}.get(
        words, re.sub(r"^(whole )?number\b", r"\1numbers", words)
    )


def _bounds(field: Mapping[str, Any]) -> str:
    """The range of a number; a bound that is only that of the type is left out."""
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    high, below = field.get("maximum"), field.get("exclusiveMaximum")
    high = None if high is not None and high >= MAX_COUNT else high
    if low is not None and high is not None:
        return f" {low:,.12g} to {high:,.12g}"
    signs = ((">", above), ("≥", low), ("<", below), ("≤", high))
    return "".join(f" {sign} {bound:,.12g}" for sign, bound in signs if bound is not None).replace(
        " <", ", <"
    )


def _value(value: object) -> str:
    words = {"True": "true", "False": "false", "None": "null"}
    return f"`{words.get(str(value), value)}`"


def _more(key: str) -> str:
    return f" ([more]({MORE[key]}))" if key in MORE else ""


def _sentence(part: Mapping[str, Any]) -> str:
    """A docstring as one paragraph."""
    return " ".join(str(part.get("description", "")).split())


def _table(heads: list[str], rows: Iterable[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in escaped).replace("|  |", "| |")


def _names(stage: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """The names that a key of the stage takes, with the arguments of those in this repository."""
    parts = schema["$defs"]
    if stage == "build":
        yield "\n### Models\n"
        yield _arguments(parts["BuildParams"]["properties"]["model"], parts, "stages/zoo/models")
    if stage == "train":
        train = parts["TrainParams"]["properties"]
        for kind, title in LISTED.items():
            yield f"\n### {title}\n\n{_listed(train[kind])}"
        yield "\n### Objectives\n"
        yield _arguments(train["objective"], parts, "stages/zoo/objectives")
        yield "\n### Datasets\n"
        yield _arguments(train["dataset"]["anyOf"][0], parts, "stages/zoo/datasets")
    if stage == "evaluate":
        yield "\n### Metrics\n"
        tasks = schema["x-tasks"]["evaluate.metrics"].items()
        rows = [[task, ", ".join(f"`{name}`" for name in names)] for task, names in tasks]
        yield _table(["task", "metrics"], rows)


def _listed(named: Mapping[str, Any]) -> str:
    names = named["properties"]["name"]["enum"]
    return (
        ", ".join(f"`{name}`" for name in names)
        + ". Arguments are those of the class; `reprise check` names those that are wrong.\n"
    )


def _arguments(named: Mapping[str, Any], parts: Mapping[str, Any], folder: str) -> str:
    rows = []
    for case in named["allOf"]:
        part = dict(case["then"]["properties"])
        name = part.pop("name")["const"]
        takes = [
            f"`{key}`: {_takes(field, parts)}"
            + (f"; else {_value(field['default'])}" if "default" in field else "")
            for key, field in part.items()
        ]
        link = f"[`{name}`](../{folder}/{name}.py)"
        rows.append([link, "<br>".join(takes), _sentence(case["then"])])
    return _table(["name", "arguments", "what they are"], rows)


def describe(schema: dict[str, Any], models: Iterable[type[BaseModel]]) -> None:
    """Put the docstrings under the fields of `models` into their parts of `schema`."""
    for model in models:
        part = schema["$defs"].get(model.__name__)
        for name, text in ({} if part is None else field_docs(model)).items():
            part["properties"][name]["description"] = text


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """The docstring under each field of a section, those that it inherits included."""
    found: dict[str, str] = {}
    for base in (b for b in reversed(model.__mro__) if issubclass(b, Config) and b is not Config):
        (node,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(node, ast.ClassDef)
        for field, below in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value)
                found[ast.unparse(field.target)] = re.sub(r"\s+", " ", text).strip()
    return found
