"""What a run depends on, as one short name: the same files and values that DVC looks at."""

from stages.common.snapshot import name_snapshot, take_snapshot


def fingerprint(stage: str) -> str:
    """Sixteen hexadecimal digits of the declared dependencies, parameters and library versions."""
    return name_snapshot(take_snapshot(stage))
