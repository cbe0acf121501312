"""`dvc` and `reprise` from a process that has loaded their libraries: it forks for each command.

A command has a process, a folder, an environment and outputs of its own, as it has from a shell;
what it does without is the import of DVC, a second or two that say nothing about the command.
One such process serves one pytest worker, and ends with it.
"""

import atexit
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

COMMANDS = {"dvc": "dvc.cli", "reprise": "pipeline.cli"}
# What they import when they are about to do something; no library that starts threads or reads
# the environment when it is imported.
MODULES = (
    *("dvc.cli", "dvc.commands.repro", "dvc.commands.status", "dvc.repo.reproduce", "dvc.stage"),
    *("dvc.dependency", "dvc.output", "dvc.ignore", "dvc.render", "dvc.scm", "dvc_data.index"),
    *("dvc.cachemgr", "dvc.data_cloud", "dvc.lock", "dvc.rwlock", "dvc.analytics", "dvc.compare"),
    *("dulwich.ignore", "dulwich.worktree", "flufl.lock", "zc.lockfile", "configobj"),
    *("networkx", "scmrepo.git", "jsonschema", "rich.table", "rich.console", "pygit2", "numpy"),
    *("dvc._debug", "dvc.dirs", "dvc_render.html", "dvc_render.vega", "dvc_render.plotly"),
    *("dvc_render.image", "flatten_dict", "platformdirs.unix", "pyparsing", "scmrepo.fs"),
    *(
        "pipeline.cli",
        "pipeline.params.check",
        "pipeline.commands.plan",
        "pipeline.commands.accept",
        "pipeline.commands.gc",
    ),
    # What Prefect is made of; not Prefect, which reads the environment.
    *("httpx", "pendulum", "griffe", "websockets.asyncio.client", "pydantic_settings", "amplitude"),
    *("opentelemetry.trace", "prometheus_client", "pathspec", "asgi_lifespan", "coolname", "anyio"),
    *("jsonschema", "psutil", "pygments.lexers", "dateutil.parser", "h2.connection", "cachetools"),
    *("pipeline.commands.garbage", "pipeline.commands.merge_lock", "pipeline.deps.deps"),
)


@dataclass
class Warm:
    """The process that forks, from the side of those who ask."""

    _process: "subprocess.Popen[str] | None" = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(
        self, command: Sequence[str], folder: Path, environment: dict[str, str], timeout: float
    ) -> "subprocess.CompletedProcess[str] | None":
        """Run a command to its end; None while another one is going on."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._run(command, folder, environment, timeout)
        finally:
            self._lock.release()

    def _run(
        self, command: Sequence[str], folder: Path, environment: dict[str, str], timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        if self._process is None or self._process.poll() is not None:
            self._process = _start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory(prefix="warm-") as outputs:
            asked = [list(command), str(folder), environment, outputs]
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            pid = int(self._process.stdout.readline())
            late = threading.Event()

            def end() -> None:
                late.set()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

            timer = threading.Timer(timeout, end)
            timer.start()
            try:
                code = int(self._process.stdout.readline())
            finally:
                timer.cancel()
            said, told = (
                (Path(outputs) / name).read_text(encoding="utf-8") for name in ("out", "err")
            )
        if late.is_set():
            raise subprocess.TimeoutExpired(list(command), timeout, said, told)
        return subprocess.CompletedProcess(tuple(command), code, said, told)


def _start() -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    # It ends when nobody can ask any more.
    atexit.register(process.communicate)
    return process


def serve() -> None:
    """Read commands, fork for each, and say its process's number and how it has ended."""
    for module in MODULES:
        importlib.import_module(module)
    assert len(os.listdir("/proc/self/task")) == 1, "a library has started a thread"  # noqa: PTH208
    for line in sys.stdin:
        command, folder, environment, outputs = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(command, folder, environment, outputs)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(command: list[str], folder: str, environment: dict[str, str], outputs: str) -> None:
    """Be the command, and end as it does."""
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(f"{outputs}/{name}", os.O_WRONLY | os.O_CREAT)
            os.dup2(file, number)
            os.close(file)
        os.close(nothing)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        home = os.path.dirname(sys.executable)  # noqa: PTH120
        sys.path[0] = home
        sys.argv = [f"{home}/{command[0]}", *command[1:]]
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        code = _call(COMMANDS[command[0]])
    except BaseException:
        # Else an exit code of 1 without a word: what follows ends the process at once.
        traceback.print_exc()
    finally:
        for end in (atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
            with contextlib.suppress(Exception):
                end()
        os._exit(code)


def _call(module: str) -> int:
    """Call the command's `main`; its exit code, as the interpreter would give it."""
    try:
        code = importlib.import_module(module).main()
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt:
        return 130
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        return 1
    return int(code or 0)


if __name__ == "__main__":
    serve()
