"""`reprise down`: ends all that `reprise up` has started here."""

import click

from pipeline.scheduled.workspace import WORKSPACES, remove_dead
from pipeline.server.launch import (
    GRACE_SECONDS,
)
from pipeline.server.services import (
    find_process,
    one_at_a_time,
    read_records,
    write_records,
)
from pipeline.server.shutdown import end, marked
from stages.common.errors import Problem, UserError


def down() -> None:
    """End all that `reprise up` has started here, children included; fine when there is nothing.

    Raises UserError when something can't be ended, after all else has been; it stays recorded.
    """
    with one_at_a_time():
        records = read_records()
        ended: list[str] = []
        problems: list[Problem] = []
        for name, grace_seconds in GRACE_SECONDS.items():
            record = records.get(name)
            runs = (record is not None and find_process(record) is not None) or marked(name)
            try:
                end(name, record, grace_seconds)
                records.pop(name, None)
                write_records(records)
            except UserError as error:
                problems += error.problems
                continue
            if runs:
                ended.append(name)
        if WORKSPACES.is_dir():
            remove_dead(WORKSPACES.resolve(), click.echo)
    if ended or not problems:
        click.echo(f"ended: {', '.join(ended)}" if ended else "nothing is up")
    if problems:
        raise UserError(*problems)
