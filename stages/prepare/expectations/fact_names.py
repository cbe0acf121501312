"""Names of what rules can say of files of images and of texts, beside a table's own columns.

- {type: expect_column_values_to_be_unique, column: image.hash, severity: warning}
"""

from collections.abc import Collection

OF_IMAGES = ("decodes", "width", "height", "mode", "hash")
OF_TEXTS = ("num_words", "num_letters")


def split_fact(name: str, columns: Collection[str]) -> tuple[str, str] | None:
    """The column and the fact in a name such as `image.width`, unless it is a column's own."""
    column, _, fact = name.rpartition(".")
    is_known = fact in OF_IMAGES or fact in OF_TEXTS
    return (column, fact) if is_known and column in columns and name not in columns else None
