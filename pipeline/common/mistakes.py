"""A command in the root of the repository, whose mistakes end on one screen."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from pipeline.common.user import know_user
from stages.common.errors import UserError, format_problem
from stages.common.yamlfile import with_location


def stop_at_mistakes(command: Callable[..., None]) -> Callable[..., None]:
    """Run `command` in the repository's root; a user's mistake ends it with 1 on one screen."""

    @functools.wraps(command)
    def run(*arguments: object, **options: object) -> None:
        try:
            know_user()
            os.chdir(_find_root())
            command(*arguments, **options)
        except UserError as error:
            for problem in error.problems:
                click.echo(format_problem(with_location(problem)), err=True)
            for note in getattr(error, "__notes__", []):
                click.echo(note, err=True)
            sys.exit(1)
        except OSError as error:
            # A full disk or a folder that can't be written is the user's to mend, no bug.
            click.echo(f"{error.strerror or error}: {error.filename or Path.cwd()}", err=True)
            sys.exit(1)

    return run


def _find_root() -> Path:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists() and (folder / "stages").is_dir():
            return folder
    raise UserError(f"{here} is not inside a Reprise repository: there is no dvc.yaml with stages/")
