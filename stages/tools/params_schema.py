"""`stages/params.schema.json`: what `params.yaml` may hold, for editors and `reprise check`.

    python -m stages.tools.params_schema            # writes it, and docs/params.md
    python -m stages.tools.params_schema --check    # stops with 1 when one is out of date
    python -m stages.tools.params_schema FILE       # writes the schema elsewhere

It holds the typed sections, each model and dataset of the zoo with its arguments, and each loss,
optimizer and schedule of torch with those of its signature. `x-tasks` are the names that each
task has, `x-closures` the optimizers that evaluate the loss themselves, `x-sources` the files and
versions that it was made from.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import BaseModel, create_model

from stages.build.params import BuildParams
from stages.common.config import Config, Seed
from stages.common.errors import UserError
from stages.common.files import md5
from stages.evaluate.measure.metrics import metrics_of
from stages.evaluate.params import GatedEvaluateParams
from stages.infer.params import InferParams
from stages.model.model import ZOO, arguments_class
from stages.prepare.params import PrepareParams
from stages.tools.params_page import PAGE, describe, make_page
from stages.training.data.zoo_datasets import dataset_arguments, dataset_names
from stages.training.optim.monitored_metric import metric_of
from stages.training.optim.objective import objective_arguments, objective_names
from stages.training.optim.optimizer import closures
from stages.training.optim.registry import Kind, allowed, arguments_of, losses_of, refused
from stages.training.params import TrainParams
from stages.tune.params import TuneParams

SCHEMA = Path("stages/params.schema.json")
SOURCES = (
    *(
        f"stages/{s}/params.py"
        for s in ("prepare", "build", "tune", "training", "evaluate", "infer")
    ),
    "stages/zoo/models/[!_]*.py",
    "stages/zoo/datasets/[!_]*.py",
    "stages/zoo/objectives/[!_]*.py",
    "stages/common/config.py",
    "stages/training/optim/call_signature.py",
    "stages/evaluate/measure/metrics.py",
    "stages/evaluate/measure/own_metrics.py",
    "stages/training/optim/bounds.py",
    "stages/training/data/zoo_datasets.py",
    "stages/training/optim/objective.py",
    "stages/training/optim/registry.py",
    "stages/training/optim/optimizer.py",
    "stages/zoo/losses.py",
    "stages/zoo/metrics.py",
    "stages/zoo/schedules.py",
    "stages/tools/params_page.py",
    "stages/tools/params_schema.py",
)


def sections_schema() -> dict[str, Any]:
    """The schema of the typed sections, in which a name may have any arguments."""
    root = create_model(
        "params",
        seed=(Seed, ...),
        prepare=(PrepareParams, ...),
        build=(BuildParams, ...),
        tune=(TuneParams, ...),
        train=(TrainParams, ...),
        evaluate=(GatedEvaluateParams, ...),
        infer=(InferParams, ...),
    )
    schema = root.model_json_schema()
    describe(schema, _sections(Config))
    return schema


def _sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models of the sections of `params.yaml`, and of the parts in them."""
    below = [inner for each in model.__subclasses__() for inner in (each, *_sections(each))]
    return [each for each in below if each.__module__.endswith(".params")]


def make_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of `params.yaml`."""
    schema = sections_schema()
    schema["additionalProperties"] = False
    parts = schema["$defs"]
    del parts["ClassSpec"]

    models = sorted(path.stem for path in ZOO.glob("[!_]*.py"))
    parts["BuildParams"]["properties"]["model"] = _named(
        {name: arguments_class(name) for name in models}, {}, parts
    )
    datasets = {name: dataset_arguments(name) for name in dataset_names()}
    parts["TrainParams"]["properties"]["dataset"] = {
        "anyOf": [_named(datasets, {}, parts), {"type": "null"}]
    }
    objectives = {name: objective_arguments(name) for name in objective_names()}
    parts["TrainParams"]["properties"]["objective"] = _named(objectives, {}, parts)
    for kind in get_args(Kind):
        names = {name: arguments_of(kind, name) for name in allowed(kind)}
        parts["TrainParams"]["properties"][kind] = _named(names, refused(kind), parts)
    tasks = _names_by_task()
    items = parts["GatedEvaluateParams"]["properties"]["metrics"]["items"]
    items["enum"] = [name for names in tasks["evaluate.metrics"].values() for name in names]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "params.yaml",
        "$comment": "Written by `reprise schema`.",
        "x-tasks": tasks,
        "x-closures": closures(),
        "x-sources": {**{str(path): md5(path) for path in source_files()}, "torch": _torch()},
        **_tidy(schema),
    }


def _names_by_task() -> dict[str, dict[str, list[str]]]:
    """The names that a task has, by the key where they stand."""
    metrics = {task: list(metrics_of(task)) for task in ("classification", "regression")}
    watched = {task: ["loss", metric_of(task)] for task in metrics}
    losses = {task: list(losses_of(task)) for task in metrics}
    return {
        "evaluate.metrics": metrics,
        "train.loss.name": losses,
        "train.early_stopping.metric": watched,
    }


def _tidy(node: Any) -> Any:
    """`node` without the titles that repeat a key and the nulls that stand for 'no default'."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {k: _tidy(v) for k, v in node.items() if k != "title" or not isinstance(v, str)}
    if kept.get("default", ...) is None:
        del kept["default"]
    return kept


def source_files() -> list[Path]:
    """The files that the schema follows from."""
    return sorted({path for pattern in SOURCES for path in Path().glob(pattern)})


def _torch() -> str:
    return torch.__version__.split("+")[0]


def _named(
    names: Mapping[str, type[BaseModel]], refused: Mapping[str, str], parts: dict[str, Any]
) -> dict[str, Any]:
    """A name, and beside it the arguments of what it names; their own parts go to `parts`."""
    cases = []
    for name, model in names.items():
        arguments = model.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        inner = arguments.pop("$defs", {})
        parts.update({f"{name}.{part}": content for part, content in inner.items()})
        properties = {"name": {"const": name}, **arguments.pop("properties", {})}
        described = {k: v for k, v in arguments.items() if k not in ("type", "required")}
        required = ["name", *arguments.get("required", [])]
        case = {**described, "properties": properties, "required": required}
        cases.append({"if": {"properties": {"name": {"const": name}}}, "then": case})
    named: dict[str, Any] = {
        "type": "object",
        "properties": {"name": {"enum": list(names)}},
        "required": ["name"],
        "allOf": cases,
    }
    return named | ({"x-refused": dict(refused)} if refused else {})


def main() -> None:
    """Write the schema and the page, or compare them with what is there."""
    check = sys.argv[1:] == ["--check"]
    elsewhere = Path(sys.argv[1]) if sys.argv[1:] and not check else None
    try:
        schema = make_schema()
    except UserError as error:
        # A mistake in a file of the zoo, not in here.
        sys.exit(str(error))
    texts = {elsewhere or SCHEMA: json.dumps(schema, indent=1, ensure_ascii=False) + "\n"}
    # A project may have dropped the docs.
    if elsewhere is None and PAGE.parent.is_dir():
        texts[PAGE] = make_page(schema, _tidy(sections_schema()))
    stale = {
        path: text
        for path, text in texts.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        if check:
            print(f"{path} is out of date; 'reprise schema' writes it")
            continue
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".writing")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
        print(f"wrote {path}")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
