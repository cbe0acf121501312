"""Loggers that are told of a training: `REPRISE_LOGGERS=mlflow,wandb`, beside TensorBoard.

All of them are one function, `log(step, values)`: that of `TensorBoard.log`, and what each opener
of `logger_process.py` gives for a `Run`. A logger works in a process of its own, which gets what is
logged through a pipe: so a server that is slow or gone, or a library that fails, neither holds up
nor changes a training. What is missing is installed as an extra; each has its own variables
(`MLFLOW_TRACKING_URI`, `WANDB_MODE`, …), and without them stays in `.reprise`, offline.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from stages.common.errors import Problem, UserError, wrong_name

VARIABLE = "REPRISE_LOGGERS"
NAMES = ("mlflow", "wandb")
# What a logger has to pass on when the training has ended, and when it was broken off.
END_SECONDS = 60.0
STOP_SECONDS = 2.0
# More, for a process to end in which nothing works any more.
KILL_SECONDS = 2.0
# What of the environment no line may show.
SECRET = ("KEY", "TOKEN", "PASSWORD", "SECRET")
MIN_SECRET = 4
# Up to the last @: the password of a database may hold both that and a slash.
_USER = re.compile(r"(?<=://)\S+@")

Values = Mapping[str, float]
Log = Callable[[int, Values], None]
End = Literal["finished", "failed", "killed"]


@dataclass(frozen=True)
class Run:
    """A training as a logger sees it: `name` is that of its folder in TensorBoard.

    `token` is the same when a training resumes after a kill, and another for every other one.
    """

    name: str
    token: str
    chosen: Mapping[str, bool | int | float | str]


# Its context ends with BrokenOffError where the training has not come to its end.
Opener = Callable[[Run], AbstractContextManager[Log]]


class BrokenOffError(Exception):
    """The training has failed, or was stopped: `end` says which."""

    def __init__(self, end: End) -> None:
        self.end = end
        super().__init__(end)


def asked_loggers() -> list[str]:
    """The loggers that the environment names. Raises UserError for wrong and missing ones."""
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    asked = list(dict.fromkeys(name for name in names if name))
    problems = []
    for name in asked:
        if name not in NAMES:
            problems.append(wrong_name(f"{VARIABLE} names no logger: '{name}'", name, NAMES))
        elif not _is_installed(name):
            how = f"pip install --constraint constraints.txt --editable '.[{name}]'"
            problems.append(
                Problem(f"{VARIABLE} asks for '{name}', which is not installed\n  {how}")
            )
    if problems:
        raise UserError(*problems)
    return asked


def _is_installed(name: str) -> bool:
    spec = find_spec(name)
    # A folder of that name, as wandb leaves one, could be imported too: it has no file.
    return spec is not None and spec.origin is not None


@contextmanager
def open_loggers(
    name: str,
    chosen: Mapping[str, bool | int | float | str],
    checkpoints: Path | None,
) -> Iterator[Log]:
    """One function that tells all loggers which the environment names; it never waits.

    A training that resumes from `checkpoints` resumes its runs there. At the end it waits some
    seconds for what they still have to pass on.
    """
    senders = []
    for logger in asked_loggers():
        try:
            senders.append(_Sender(logger, Run(name, _token(logger, checkpoints), chosen)))
        except OSError as error:
            print(f"{logger} is left out; the training continues ({error.strerror or error})")

    def log(step: int, values: Values) -> None:
        for sender in senders:
            sender.send([step, dict(values)])

    end: End = "finished"
    try:
        yield log
    except BaseException as error:
        end = "failed" if isinstance(error, Exception) else "killed"
        raise
    finally:
        seconds = END_SECONDS if end == "finished" else STOP_SECONDS
        for sender in senders:
            sender.send({"end": end, "seconds": seconds})
        for sender in senders:
            sender.wait(seconds + KILL_SECONDS)


def without_secrets(text: str) -> str:
    """`text` without the user of an address, and without any secret of the environment."""
    text = _USER.sub("…@", text)
    # The longest first: one may begin with another.
    for name, value in sorted(os.environ.items(), key=lambda item: -len(item[1])):
        if len(value) >= MIN_SECRET and any(word in name.upper() for word in SECRET):
            text = text.replace(value, "…")
    return text


def _token(logger: str, checkpoints: Path | None) -> str:
    """The name of a training for a logger: kept beside its checkpoints until it has ended."""
    token = uuid.uuid4().hex[:16]
    if checkpoints is None:
        return token
    path = checkpoints / f"{logger}.run"
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8")
    temporary = path.with_suffix(".writing")
    temporary.write_text(token, encoding="utf-8")
    temporary.replace(path)
    return token


class _Sender:
    """The process of one logger."""

    def __init__(self, logger: str, run: Run) -> None:
        self._logger = logger
        self._gone = False
        # A session of its own: Ctrl-C is for the training, which then says how it has ended.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stages.train.logs.logger_process", logger],
            stdin=subprocess.PIPE,
            start_new_session=True,
            text=True,
            encoding="utf-8",
        )
        self.send(asdict(run))

    def send(self, message: object) -> None:
        """Hand a line over, unless the process has ended. It reads at once, so this never waits."""
        if self._gone:
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError:
            self._gone = True
            if code := self._process.wait():
                print(
                    f"{self._logger}: its process failed (exit code {code}); the training continues"
                )

    def wait(self, seconds: float) -> None:
        """Until the process has ended; it is killed after `seconds`."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
