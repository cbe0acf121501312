"""Runs a module of the project until it is killed, in the middle of what KILL_AT names.

    KILL_AT=save,step,end python tests/support/killed.py -m stages.train  # one by one, to the end
    KILL_AT=step KILL_RANK=1 PYTHON_EXEC=… python -m stages.train         # torchrun's processes

Nothing is killed before there is a checkpoint to resume from; then all that trains, at once, as
when a machine goes down. Of several processes the one of KILL_RANK does it.
"""

import io
import os
import runpy
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

import psutil


def main() -> None:
    """Run the module that the arguments name, as `python -u -m` does, once for each moment."""
    sys.path[0] = str(Path.cwd())
    sys.argv = [argument for argument in sys.argv[1:] if argument not in ("-u", "-m")]
    *moments, last = os.environ["KILL_AT"].split(",")
    if moments:
        # Each is a copy of this process: to import torch takes longer than all that they do.
        import_module("stages.train.fit")
    for moment in moments:
        copy = os.fork()
        if copy == 0:
            run(moment)
            return
        code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        # A line of its own: what was killed may have been in the middle of one.
        print(f"\n{moment}: {code}", flush=True)
    run(last)


def run(moment: str) -> None:
    """Run the module; this process kills itself in the middle of a step, save, validation, write.

    At the end it does not, nor if it is another one's turn.
    """
    arms = {"step": _in_step, "save": _in_save, "validation": _in_validation, "write": _in_write}
    if moment != "end" and os.environ.get("RANK", "0") == os.environ.get("KILL_RANK", "0"):
        arms[moment]()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def kill() -> NoReturn:
    """End the stage, torchrun and all processes that train, this one last."""
    me = psutil.Process()
    stage = me.parents()[1] if "RANK" in os.environ else me
    for process in (stage, *stage.children(recursive=True)):
        if process != me:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    me.kill()
    raise AssertionError


def has_checkpoint() -> bool:
    """Whether there is something to resume from: a file, or a part of each of two processes."""
    folder = Path(".reprise/checkpoints")
    return any(folder.glob("*/*.pt")) or len(list(folder.glob("*/*.part"))) > 2


def _in_step() -> None:
    """The gradient is there, and nothing of it applied; neither the first nor last of an epoch."""
    import torch

    from stages.training import build

    train_step, backward = build.train_step, torch.Tensor.backward
    steps: list[int] = []

    def noted(step: Any, batch: Any, state: Any) -> None:
        steps.append(state.totals.num_steps)
        train_step(step, batch, state)

    def fatal(*given: Any, **named: Any) -> None:
        backward(*given, **named)  # type: ignore[no-untyped-call]
        if steps[-1:] == [3] and has_checkpoint():
            kill()

    build.train_step, torch.Tensor.backward = noted, fatal  # type: ignore[method-assign]


def _in_save() -> None:
    """A file is written to its half; two whole ones lie beside it."""
    import torch

    save: Callable[..., None] = torch.save

    def fatal(content: Any, file: IO[bytes], **named: Any) -> None:
        # Processes send each other tensors by it, too.
        if not (str(getattr(file, "name", "")).endswith(".writing") and has_checkpoint()):
            save(content, file, **named)
            return
        buffer = io.BytesIO()
        save(content, buffer)
        file.write(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        file.flush()
        kill()

    torch.save = fatal


def _in_validation() -> None:
    """The scores of some rows are there, and no figure."""
    from stages.training import loop

    validate = loop.validate

    def fatal(model: Any, *others: Any) -> tuple[float, float]:
        if has_checkpoint():
            model.register_forward_hook(lambda *_: kill())
        return validate(model, *others)

    loop.validate = fatal


def _in_write() -> None:
    """The model is written, its metrics and history are not."""
    from stages.train import results

    write = results.write_json

    def fatal(path: Path, content: Any) -> None:
        if path.name == "metrics.json":
            kill()
        write(path, content)

    results.write_json = fatal


if __name__ == "__main__":
    main()
