"""Numbers of things in sentences: 1 row is, 2 rows are."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """The number with its noun: `one` of a single thing, else `many`, which is `one` and an s."""
    return f"{number:,} {either(number, one, f'{one}s' if many is None else many)}"


def either(number: int, one: str, many: str) -> str:
    """The word for a single thing, or that for several and for none."""
    return one if number == 1 else many
