"""The process of a logger: `python -m stages.train.logs.logger_process NAME`.

Its input is a line of JSON for the run, one for each `[step, values]`, and one that says how the
training has ended. Where the last is missing, the training was killed. Whatever fails here is
said once, without the secrets of the environment, and ends this process alone.

A thread of the training with a time limit would not do. The audit of a stage ends it for a socket
to another machine, and can't tell a library's own threads from the training's. At the interpreter's
exit Python waits for the threads of pools, and wandb for its service, both without a limit. Nobody
would be left to say that a training was killed. And a thread takes turns with the training's.
"""

import json
import os
import signal
import sys
from queue import SimpleQueue
from threading import Thread
from types import FrameType
from typing import Any

from stages.train.logs.logger import STOP_SECONDS, BrokenOffError, Opener, Run, without_secrets
from stages.train.logs.mlflow_logger import open_mlflow
from stages.train.logs.wandb_logger import open_wandb

OPENERS: dict[str, Opener] = {"mlflow": open_mlflow, "wandb": open_wandb}
MAX_SHOWN = 300


def main() -> None:
    """Pass on what comes in, until the training has ended."""
    name = sys.argv[1]
    # The end of the input ends this process; a run that is told to stop still has something to say.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    messages: SimpleQueue[Any] = SimpleQueue()
    Thread(target=_read, args=(messages,), daemon=True).start()

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        print(f"{name}: not all that was logged could be passed on in time", flush=True)
        os._exit(0)

    signal.signal(signal.SIGALRM, give_up)
    first = messages.get()
    if "end" in first:
        return
    try:
        with OPENERS[name](Run(**first)) as log:
            while isinstance(message := messages.get(), list):
                log(*message)
            if message["end"] != "finished":
                raise BrokenOffError(message["end"])
    except BrokenOffError:
        pass
    except BaseException as error:
        text = without_secrets(f"{type(error).__name__}: {error}")[:MAX_SHOWN]
        shown = " ".join(text.split())
        print(f"{name} failed and is left out; the training continues ({shown})", flush=True)
        # What still runs in a library's own threads must not hold up the end.
        os._exit(0)


def _read(messages: "SimpleQueue[Any]") -> None:
    """Take every line as soon as it comes: the training must not wait."""
    end: Any = {"end": "killed", "seconds": STOP_SECONDS}
    for line in sys.stdin:
        # The last one of a training that was killed may be half a line.
        if not line.endswith("\n"):
            break
        message = json.loads(line)
        if "end" in message:
            end = message
            break
        messages.put(message)
    signal.setitimer(signal.ITIMER_REAL, end["seconds"])
    messages.put(end)


if __name__ == "__main__":
    main()
