# In place of `dvc`, `reprise` and `python`: see server.py. It imports no more than it must, since
# it starts hundreds of times.
import json
import os
import signal
import socket
import sys

SERVER = {"dvc": "commands", "reprise": "commands", "python": "stages"}
STAGES = ("prepare", "build", "tune", "train", "evaluate", "infer", "train.worker")
TOOLS = ("stages.tools.", "stages.compare.")


def main() -> None:
    """Ask for the command and end as it ends; what is no command of ours is run by Python."""
    here, name = os.path.split(os.path.abspath(sys.argv[0]))
    if name == "python" and not is_stage(sys.argv[1:]):
        python = os.path.join(os.path.dirname(sys.executable), name)
        os.execv(python, [python, *sys.argv[1:]])
    fork = socket.socket(socket.AF_UNIX)
    fork.connect(os.path.join(os.path.dirname(here), f"{SERVER[name]}.socket"))
    asked = [[os.path.join(here, name), *sys.argv[1:]], os.getcwd(), dict(os.environ)]
    message = f"{json.dumps(asked)}\n".encode()
    sent = socket.send_fds(fork, [message], [0, 1, 2])
    fork.sendall(message[sent:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda number, _: fork.send(bytes([number])))
    code = int(fork.makefile().readline() or -signal.SIGKILL)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def is_stage(arguments: list[str]) -> bool:
    """Check for `-m` and a module of ours; a process of several that train is started cold."""
    module = arguments[1] if arguments[:1] == ["-m"] and len(arguments) > 1 else ""
    ours = module in [f"stages.{stage}" for stage in STAGES] or module.startswith(TOOLS)
    return ours and "RANK" not in os.environ


main()
