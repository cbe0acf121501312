"""Findings of the doctor that are not well."""

from collections.abc import Iterable

from pipeline.doctor.finding import Finding


def bad(found: Iterable[Finding]) -> list[tuple[str, str]]:
    """The level and the first words of what is not well."""
    return [(each.level, each.what) for each in found if each.level != "ok"]
