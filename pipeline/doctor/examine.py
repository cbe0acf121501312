"""Runs every check of `pipeline/doctor/checks`, which are found by listing."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pipeline.doctor.finding import Check, Finding, Options, note
from stages.common.errors import UserError

CHECKS = Path(__file__).parent / "checks"


@dataclass(frozen=True)
class Area:
    """The findings of one check."""

    name: str
    findings: list[Finding]


def list_checks() -> list[Check]:
    """The modules of the checks, by the names of their files."""
    names = sorted(path.stem for path in CHECKS.glob("[!_]*.py"))
    return [cast(Check, importlib.import_module(f"pipeline.doctor.checks.{n}")) for n in names]


def examine(options: Options) -> list[Area]:
    """The findings of all areas.

    A run's text from elsewhere (`options.log`) is looked at alone: it is of another machine.
    """
    checks = list_checks()
    if options.log is not None:
        checks = [check for check in checks if check.__name__.endswith(".last_run")]  # type: ignore[attr-defined]
    return [Area(check.AREA, list(_guarded(check, options))) for check in checks]


def _guarded(check: Check, options: Options) -> Iterator[Finding]:
    """Yield its findings. That it can't look is a finding too, and never the end of the others."""
    try:
        yield from check.check(options)
    except UserError as error:
        yield Finding("wrong", str(error))
    except OSError as error:
        name = f": {error.filename}" if error.filename else ""
        reason = f"{error.strerror or error}{name}"
        yield note(f"it could not be looked at ({reason})", "what is wrong there is not known")
    except Exception as error:  # a check that fails must not hide what the others find
        reason = f"{type(error).__name__}: {error}"
        yield note(f"it could not be looked at ({reason})", "this is a bug of the check itself")


def apply_fixes(areas: list[Area]) -> Iterator[str]:
    """Mend what can be mended without harm; yield what was done, or why it was not."""
    for area in areas:
        for finding in area.findings:
            if finding.fix is None:
                continue
            try:
                yield f"{area.name}: {finding.fix()}"
            except (UserError, OSError) as error:
                yield f"{area.name}: not mended: {error}"
