"""Recipes to start from: the template with `docs/recipes/NAME.yaml` becomes `params.yaml`."""

import difflib
from pathlib import Path

import click

from pipeline.common.atomic import write_whole
from pipeline.common.git import try_git
from pipeline.params.template import apply_recipe, read_title
from stages.common.errors import UserError, did_you_mean
from stages.common.params import PARAMS

RECIPES = Path("docs/recipes")


def list_recipes() -> dict[str, str]:
    """The recipes by name, each with the line that says what it is."""
    return {path.stem: read_title(path) or "" for path in sorted(RECIPES.glob("*.yaml"))}


def write_recipe(name: str, *, force: bool) -> None:
    """Show what changes in `params.yaml` and write it.

    Raises UserError for an unknown name, and when the file has edits that nothing else holds,
    unless `force` says that they may go.
    """
    recipes = list_recipes()
    if name not in recipes:
        meant = did_you_mean(name, recipes)
        hint = f"; did you mean '{meant}'?" if meant else ""
        raise UserError(f"there is no recipe '{name}'{hint}\n  recipes  {', '.join(recipes)}")
    new = apply_recipe(RECIPES / f"{name}.yaml")
    old = PARAMS.read_text(encoding="utf-8") if PARAMS.exists() else ""
    if old == new:
        click.echo(f"{PARAMS} is the recipe {name} already")
        return
    if not force:
        stop_at_unsaved_edits(new, f"reprise recipe {name} --force")
    for line in difflib.unified_diff(
        old.splitlines(), new.splitlines(), str(PARAMS), f"recipe {name}", lineterm="", n=1
    ):
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[0])
        click.secho(line, fg=colour)
    write_whole(PARAMS, new)
    click.echo(f"\n{PARAMS} is the recipe {name} now: run 'dvc repro'")


def stop_at_unsaved_edits(new: str, command: str) -> None:
    """Raise UserError where `params.yaml` has edits that nothing else holds and `new` would undo.

    `command` is the one that gives them up.
    """
    old = PARAMS.read_text(encoding="utf-8") if PARAMS.exists() else ""
    if old and old != new and not _is_kept(old):
        raise UserError(
            f"{PARAMS} has edits that are not committed and would be lost\n"
            f"  commit them, or give them up with '{command}'"
        )


def _is_kept(text: str) -> bool:
    """Check whether git's last commit or a recipe holds this very text."""
    if any(apply_recipe(path) == text for path in RECIPES.glob("*.yaml")):
        return True
    done = try_git(Path.cwd(), "show", f"HEAD:./{PARAMS}")
    return done.returncode == 0 and done.stdout == text
