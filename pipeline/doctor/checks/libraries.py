"""The libraries against `constraints.txt`, and torch's build against the driver of the GPU."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path

from pipeline.common.programs import python
from pipeline.doctor.finding import Finding, Options, note, ok, wrong
from stages.common.errors import UserError
from stages.common.params import VERSIONS
from stages.common.yamlfile import read_yaml
from stages.runtime.installed import check_noted

AREA = "libraries"
PINS = Path("constraints.txt")
DRIVER = Path("/proc/driver/nvidia/version")
# The oldest driver that runs a build for this CUDA, as NVIDIA has it (minor versions included).
OLDEST_DRIVERS = {11: (450, 80), 12: (525, 60), 13: (580, 65)}
MAX_SHOWN = 6
TORCH_SECONDS = 60.0
SETUP = "make setup"
ASK_TORCH = """
import torch
kinds = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
built = torch.cuda.get_arch_list()
print(torch.cuda.is_available(), torch.cuda.device_count())
print(" ".join(f"sm_{a}{b}" for a, b in sorted(kinds) if f"sm_{a}{b}" not in built))
"""
# Which library a logger of REPRISE_LOGGERS needs.
LOGGERS = {"mlflow": "mlflow", "wandb": "wandb"}


def check(_options: Options) -> Iterator[Finding]:
    """Yield what is installed otherwise than it is pinned."""
    installed = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in distributions()}
    tracked = {str(name).lower() for name in read_yaml(VERSIONS)}
    yield from check_versions(read_pins(), installed, tracked)
    try:
        check_noted()
    except UserError as error:
        why = "its results are those of code that dvc.lock does not name: a stage stops at it"
        yield wrong(str(error), why)
    yield from check_environment()
    yield from check_loggers(os.environ.get("REPRISE_LOGGERS", ""))
    yield from check_gpu()


def read_pins() -> dict[str, str]:
    """Each library of `constraints.txt` with its version."""
    pins = {}
    for line in PINS.read_text(encoding="utf-8").splitlines():
        name, equals, version = line.partition("#")[0].strip().partition("==")
        if equals:
            pins[name.strip().lower().replace("_", "-")] = version.strip()
    return pins


def check_versions(
    pins: Mapping[str, str], installed: Mapping[str, str], tracked: set[str]
) -> Iterator[Finding]:
    """Yield the libraries that differ from their pins: of those that stages import, stages stop."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [re.split(r"[\[=<>~!;]", text)[0].strip().lower() for text in project["dependencies"]]
    missing = [name for name in needed if name.replace("_", "-") not in installed]
    if missing:
        yield wrong(f"not installed: {_some(missing)}", "the project imports them", SETUP)
    other = {
        name: f"{name} {installed[name]}, not {pin}"
        for name, pin in pins.items()
        if name in installed and installed[name].split("+")[0] != pin.split("+")[0]
    }
    stops = [text for name, text in other.items() if name in tracked]
    if stops:
        why = "dvc.lock names the version that made its results: a stage stops under another"
        yield wrong(f"another version: {_some(stops)}", why, SETUP)
    if rest := [text for name, text in other.items() if name not in tracked]:
        why = f"the project is tested with the versions of {PINS}"
        yield note(f"another version: {_some(rest)}", why, SETUP)
    if not missing and not other:
        yield ok(f"{len(set(pins) & set(installed))} libraries as {PINS} pins them")


def _some(words: list[str]) -> str:
    more = len(words) - MAX_SHOWN
    return ", ".join(words[:MAX_SHOWN]) + (f", and {more} more" if more > 0 else "")


def check_environment() -> Iterator[Finding]:
    """Yield whether this Python is that of the folder's own environment, which `make` keeps."""
    own = Path(".venv").absolute()
    if own.is_dir() and Path(sys.prefix).resolve() != own.resolve():
        why = f"'make setup' keeps the libraries of {own} as they are pinned, and not of another"
        yield note(f"this is the Python of {sys.prefix}", why, "source .venv/bin/activate")


def check_loggers(asked: str) -> Iterator[Finding]:
    """Yield the loggers that are asked for and whose library is not there."""
    for name in filter(None, (part.strip() for part in asked.split(","))):
        library = LOGGERS.get(name)
        if library is not None and find_spec(library) is None:
            why = "train stops at its start where a logger can't be opened"
            command = f".venv/bin/python -m pip install -c {PINS} -e '.[{name}]'"
            yield wrong(f"REPRISE_LOGGERS asks for {name}, which is not installed", why, command)


def check_gpu() -> Iterator[Finding]:
    """Yield whether torch can use the GPU that is there, or the device that is asked for."""
    try:
        found = distribution("torch")
    except PackageNotFoundError:
        return
    file = Path(str(found.locate_file("torch/version.py")))
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    built = re.search(r"^cuda[^=]*=\s*'([\d.]+)'", text, re.MULTILINE)
    driver = re.search(r"(\d+)\.(\d+)[.\d]*\s", _driver())
    asked = os.environ.get("REPRISE_DEVICE", "")
    version = found.version
    if driver is None:
        if asked.startswith("cuda"):
            why = "no driver of NVIDIA's is loaded: a stage stops at its start"
            yield wrong("REPRISE_DEVICE asks for a GPU", why, "unset REPRISE_DEVICE", "nvidia-smi")
        yield ok(f"torch {version}, no GPU")
        return
    if built is None:
        make = wrong if asked.startswith("cuda") else note
        index = f"--index-url https://download.pytorch.org/whl/cu128 torch=={version.split('+')[0]}"
        yield make(
            f"there is a GPU (driver {driver[1]}.{driver[2]}), and torch {version} can't use it",
            "this build of torch is for CPUs: trainings take the CPU",
            f".venv/bin/python -m pip install --force-reinstall {index}",
        )
        return
    oldest = OLDEST_DRIVERS.get(int(built[1].split(".")[0]))
    if oldest is not None and (int(driver[1]), int(driver[2])) < oldest:
        yield wrong(
            f"driver {driver[1]}.{driver[2]} is older than torch {version} needs (CUDA {built[1]})",
            "torch then sees no GPU, and says 'The NVIDIA driver on your system is too old'",
            f"a driver of {oldest[0]}.{oldest[1]} or newer, or a build of torch for an older CUDA",
        )
        return
    yield from ask_torch(version)


def _driver() -> str:
    try:
        return DRIVER.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return ""


def ask_torch(version: str) -> Iterator[Finding]:
    """Yield what torch itself says of the GPUs, from a process of its own."""
    try:
        done = subprocess.run(
            [*python("-c")[:1], "-c", ASK_TORCH],
            capture_output=True,
            text=True,
            timeout=TORCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = "a GPU or its driver hangs"
        yield wrong(f"torch did not answer in {TORCH_SECONDS:.0f} s", why, "nvidia-smi")
        return
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        yield wrong(f"torch {version} can't be asked", reason, SETUP)
        return
    usable, strange = [*done.stdout.splitlines(), ""][:2]
    available, number = usable.split()
    if available != "True":
        why = "trainings take the CPU; often a container was started without its GPUs"
        yield wrong(
            f"torch {version} sees no GPU, and there is one", why, "docker run --gpus all …"
        )
    elif strange:
        why = "its first operation there ends with 'no kernel image is available'"
        yield wrong(f"torch {version} was not built for {strange}", why, "a newer build of torch")
    else:
        yield ok(f"torch {version}, {number} GPUs")
