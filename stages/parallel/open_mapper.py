"""The mapper that the environment names."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.parallel.mapper import ENV_VAR, Local, Mapper


@contextmanager
def open_mapper(stage: str, folder: Path) -> Iterator[Mapper]:
    """The mapper that the environment names, for the work of `stage` on files in `folder`.

    Raises UserError where there is no such cluster, or one that would not compute the same.
    """
    address = os.environ.get(ENV_VAR)
    if not address:
        yield Local()
        return
    from stages.parallel.cluster import open_cluster

    with open_cluster(address, stage, folder) as mapper:
        yield mapper
