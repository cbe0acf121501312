"""Lines of a training that runs in a process of its own."""

import subprocess


def read_until(process: "subprocess.Popen[str]", what: str) -> str:
    """The lines of the process up to the first line that holds `what`, that line included."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if what in line:
            return said
    raise AssertionError(f"never said {what!r}:\n{said}")
