"""`dvc`, `reprise` and `python -m stages.X` from processes that have loaded their libraries.

Where a test runs a command, the first folder of its PATH has `client.py` in place of these
programs. It hands its arguments, folder, environment, input and outputs to a process of the
session's, which forks; it ends as the fork ends. A command has a process of its own, as it has from
a shell; what it does without is the import of DVC or torch, which says nothing about the command.
Tests of processes themselves run cold.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import random
import selectors
import signal
import socket
import sys
from pathlib import Path

import numpy

from tests.support.session_process import start_for_session
from tests.support.warm.modules import MODULES

# A fork returns from `serve` and ends as the command would. Its frames are those of a text, not of
# a file: torch reads the files of frames, and a stage would be told that it must not open these.
PROGRAM = f"""
import gc, importlib, runpy, sys
from {__name__} import serve
module, function = serve()
if function:
    code = getattr(importlib.import_module(module), function)()
    # Else the interpreter looks through all that is loaded for garbage before it ends.
    gc.freeze()
    sys.exit(code)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
COMMANDS = {"dvc": "dvc.cli", "reprise": "pipeline.cli"}
WARM = (*COMMANDS, "python")
OWN = ("tests", "pipeline", "stages")
CLIENT = Path(__file__).with_name("client.py")


def start_servers(shared: Path, pytest: int) -> str:
    """A folder for PATH with programs that start warm; starts their processes if need be.

    `shared` is the session's; the processes end with that of `pytest`.
    """
    folder = shared / "warm"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "bin").exists():
            for kind in MODULES:
                command = [sys.executable, "-c", PROGRAM, str(folder), kind, str(pytest)]
                log, ready = folder / f"{kind}.log", folder / f"{kind}.socket"
                start_for_session(command, Path(__file__).parents[3], log, ready)
            _link_programs(folder / "bin")
    return str(folder / "bin")


def _link_programs(folder: Path) -> None:
    """The programs of the environment, with the client in place of those that start warm."""
    making = folder.with_name("making")
    making.mkdir()
    text = f"#!{sys.executable} -IS\n{CLIENT.read_text(encoding='utf-8')}"
    for program in Path(sys.executable).parent.iterdir():
        if program.name in WARM:
            (making / program.name).write_text(text, encoding="utf-8")
            (making / program.name).chmod(0o755)
        elif not program.name.startswith("python"):
            (making / program.name).symlink_to(program)
    making.rename(folder)


def serve() -> tuple[str, str]:
    """Fork for each who asks, until pytest has ended; a fork has its module and its function."""
    folder, kind, pytest = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    # The shell that has started this has it ignored, and so would each fork.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for module in MODULES[kind]:
        importlib.import_module(module)
    # That of Arrow's memory begins anew in a fork.
    names = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    assert names <= {"python", "jemalloc_bg_thd"}, f"a library has started threads: {names}"
    # Else the first collection of each fork copies all that was loaded here.
    gc.collect()
    gc.freeze()
    watched = os.pidfd_open(pytest)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / kind))
    listening.listen(64)
    (folder / kind).rename(folder / f"{kind}.socket")
    ready = selectors.DefaultSelector()
    ready.register(watched, selectors.EVENT_READ)
    ready.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fd == watched:
                os._exit(0)
            if key.fileobj is listening:
                asked, _ = listening.accept()
                message, files = _receive(asked)
                pid = os.fork()
                if pid == 0:
                    return _become(*message, files)
                for number in files:
                    os.close(number)
                ready.register(asked, selectors.EVENT_READ, pid)
                ready.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, asked))
            elif isinstance(key.data, int):
                assert isinstance(key.fileobj, socket.socket)
                _pass_on(key.fileobj, key.data, ready)
            else:
                pid, asked = key.data
                ready.unregister(key.fd)
                os.close(key.fd)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(OSError):
                    asked.sendall(f"{code}\n".encode())
                with contextlib.suppress(KeyError):
                    ready.unregister(asked)
                asked.close()


def _receive(asked: socket.socket) -> tuple[tuple[list[str], str, dict[str, str]], list[int]]:
    """The arguments, folder and environment of one who asks; input, output and errors."""
    message, files, _, _ = socket.recv_fds(asked, 1 << 16, 3)
    while not message.endswith(b"\n"):
        message += asked.recv(1 << 16)
    return json.loads(message), files


def _pass_on(asked: socket.socket, pid: int, ready: selectors.BaseSelector) -> None:
    """Give the fork the signals that its client has had; it ends with that one."""
    signals = asked.recv(16)
    if not signals:
        ready.unregister(asked)
    for number in signals or [signal.SIGKILL]:
        os.kill(pid, number)


def _become(
    arguments: list[str], folder: str, environment: dict[str, str], files: list[int]
) -> tuple[str, str]:
    """Be the program with these arguments; its module, and the function that it calls if any."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(len(files), os.sysconf("SC_OPEN_MAX"))
    # A stream knows of its file whether it is a terminal and can be sought in.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    program = Path(arguments[0])
    sys.executable = str(program.with_name("python"))
    random.seed()
    numpy.random.seed()  # noqa: NPY002
    if program.name in COMMANDS:
        sys.argv, sys.path[0] = arguments, str(program.parent)
        return COMMANDS[program.name], "main"
    sys.orig_argv, sys.argv = [sys.executable, *arguments[1:]], arguments[2:]
    sys.path[0] = folder
    # Those of the folder are loaded in their place.
    for name in [name for name in sys.modules if name.split(".")[0] in OWN]:
        del sys.modules[name]
    return arguments[2], ""
