"""The code and the libraries of each stage, as dependencies in `dvc.yaml`.

A stage `python -m stages.X` depends on its own folder, on every other file of its import closure
(on a folder where the closure has all of its code), and on the versions of the libraries that
these import. A stage with a model depends on the file that `build.model.name` names and on all
that a model may import, so that another model in the zoo reruns nothing; one that trains likewise
on the file that `train.objective.name` names. `train.dataset` may be
null, which no template of DVC's can follow: so a stage that trains depends on the folder of all
datasets and on what they import.
"""

import io
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from pipeline.common.atomic import write_whole
from pipeline.deps.import_closure import (
    DATASET_LOADER,
    LOADER,
    OBJECTIVE_LOADER,
    Closure,
    check_extras,
    find_closure,
    name_libraries,
)
from pipeline.deps.zoo_imports import (
    DATASETS,
    OBJECTIVES,
    ZOO,
    check_alone,
    dataset_files,
    find_allowed,
    find_allowed_objectives,
    model_files,
    objective_files,
)
from stages.common.errors import UserError
from stages.common.extras import canonical
from stages.common.params import DVC_FILE, VERSIONS
from stages.runtime.outside import ZOO as ZOO_FOLDER
from stages.runtime.outside import stop_if_outside

CONSTRAINTS = Path("constraints.txt")
NAMED_MODEL = f"{ZOO}/${{build.model.name}}.py"
NAMED_OBJECTIVE = f"{OBJECTIVES}/${{train.objective.name}}.py"
HEAD = "# Written by `reprise deps` from constraints.txt: the libraries that the stages import.\n"
_COMMAND = re.compile(r"python -m (stages\.(\w+))$")


def derive() -> dict[Path, str]:
    """The content that `dvc.yaml` and `stages/versions.yaml` must have, by path.

    Raises UserError for imports that can't be followed, libraries that are not pinned, models
    that import what they may not, and what the zoo takes from outside.
    """
    pinned = read_pins()
    yaml = _yaml()
    tree = yaml.load(DVC_FILE.read_text(encoding="utf-8"))
    check_alone(*model_files(), *objective_files())
    check_extras(model_files(), pinned)
    stop_if_outside(sorted(ZOO_FOLDER.rglob("*.py")))
    of_models = find_allowed()
    used: set[str] = set()
    for name, stage in tree["stages"].items():
        match = _COMMAND.match(str(stage.get("cmd", "")).strip())
        if match is None:
            continue
        if name != match[2]:
            raise UserError(f"{DVC_FILE}: the stage '{name}' runs {match[1]}; give both one name")
        closure = find_closure(f"{match[1]}.__main__")
        if LOADER in closure.files:
            closure = Closure(
                tuple(sorted({*closure.files, *of_models.files})),
                closure.libraries + of_models.libraries,
            )
        if OBJECTIVE_LOADER in closure.files:
            of_objectives = find_allowed_objectives()
            closure = Closure(
                tuple(sorted({*closure.files, *of_objectives.files})),
                closure.libraries + of_objectives.libraries,
            )
        if DATASET_LOADER in closure.files:
            modules = (".".join(file.with_suffix("").parts) for file in dataset_files())
            of_datasets = find_closure(*modules)
            closure = Closure(
                tuple(sorted({*closure.files, *of_datasets.files})),
                closure.libraries + of_datasets.libraries,
            )
        check_extras(closure.files, pinned)
        libraries = name_libraries(closure.libraries, pinned)
        used |= libraries
        _set_code(stage.setdefault("deps", CommentedSeq()), _code(name, closure))
        _set_libraries(stage.setdefault("params", CommentedSeq()), sorted(libraries))
    text = io.StringIO()
    yaml.dump(tree, text)
    versions = HEAD + "".join(f"{name}: {pinned[name]}\n" for name in sorted(used))
    return {DVC_FILE: text.getvalue(), VERSIONS: versions}


def out_of_date(derived: dict[Path, str]) -> list[Path]:
    """The files that don't hold what they must."""
    return [
        path
        for path, text in derived.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def write(files: dict[Path, str]) -> None:
    """Write each file whole, or leave it as it was."""
    for path, text in files.items():
        write_whole(path, text)


def read_pins() -> dict[str, str]:
    """The versions in `constraints.txt` by canonical name."""
    pins: dict[str, str] = {}
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        name, _, version = line.split("#")[0].strip().partition("==")
        if version:
            pins[canonical(name)] = version.strip()
    return pins


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 4096
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _code(stage: str, closure: Closure) -> list[str]:
    """The stage's folder, then whole folders and files elsewhere, the named model among them."""
    own = Path("stages") / stage
    files = {file for file in closure.files if not {own, DATASETS} & {*file.parents}}
    code = {_widest(file, files).as_posix() for file in files}
    if LOADER in closure.files:
        code.add(NAMED_MODEL)
    if OBJECTIVE_LOADER in closure.files:
        code.add(NAMED_OBJECTIVE)
    if DATASET_LOADER in closure.files:
        code.add(DATASETS.as_posix())
    return [own.as_posix(), *sorted(code)]


def _widest(file: Path, files: set[Path]) -> Path:
    """The highest folder above `file` of whose code `files` has all; else `file` itself."""
    # Not `stages` itself: it holds every stage.
    for folder in reversed(file.parents[:-2]):
        if folder != Path(ZOO).parent and files.issuperset(folder.rglob("*.py")):
            return folder
    return file


def _set_code(deps: CommentedSeq, code: list[str]) -> None:
    """Replace the entries under `stages/`; in place, so that comments on the others stay."""
    present = [dep for dep in deps if str(dep).startswith("stages/")]
    if present == code:
        return
    for index in reversed(range(len(deps))):
        if str(deps[index]).startswith("stages/"):
            del deps[index]
    deps.extend(code)


def _set_libraries(params: CommentedSeq, libraries: list[str]) -> None:
    """Replace the list under `stages/versions.yaml`, or add it at the end."""
    listed = CommentedSeq(libraries)
    listed.fa.set_flow_style()
    entry: Any = CommentedMap({str(VERSIONS): listed})
    for present in params:
        if isinstance(present, dict) and str(VERSIONS) in present:
            if list(present[str(VERSIONS)]) != libraries:
                present[str(VERSIONS)] = listed
            return
    if libraries:
        params.append(entry)
