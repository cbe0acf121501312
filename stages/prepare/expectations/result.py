"""The result of one expectation: Great Expectations' result as short text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from stages.common.errors import shorten
from stages.prepare.expectations.suite import Rule, is_nested

Status = Literal["passed", "warning", "failed"]
MAX_EXAMPLES = 5
# Great Expectations' own words, and the project's.
_IS_OTHER_TYPE = "must either be None or of the same type"
OTHER_TYPE = (
    "its bounds are of another type than its values, as numbers beside texts: correct the column, "
    "or the rule"
)
MAX_ROWS_NAMED = 3


@dataclass(frozen=True)
class Outcome:
    """One result: what was found, if there is anything to say, and examples of what offends.

    `place` is the rule's in its suite.
    """

    rule: Rule
    passed: bool
    finding: str = ""
    examples: tuple[str, ...] = ()
    place: int = 0

    @property
    def status(self) -> Status:
        """`failed` stops the stage, `warning` does not."""
        if self.passed:
            return "passed"
        return "failed" if self.rule.severity == "critical" else "warning"


def offending_rows(result: Any) -> list[int]:
    """The numbers of the first rows (from 0) that do not meet the expectation."""
    if _exception(result.exception_info) is not None:
        return []
    return [int(row) for row in result.result.get("partial_unexpected_index_list") or []]


def read_outcome(rule: Rule, result: Any, rows: list[int], contents: pl.DataFrame) -> Outcome:
    """The outcome of `rule` from Great Expectations' result of it, in format SUMMARY.

    `contents` are those of its `offending_rows`: of the columns to name them by.
    """
    error = _exception(result.exception_info)
    if error is not None:
        return Outcome(rule, passed=False, finding=f"could not be checked: {error}")
    details: Mapping[str, Any] = result.result
    passed = bool(result.success)
    finding = _finding(details) or ("" if passed else "not so")
    return Outcome(rule, passed, finding, _examples(rows, contents))


def share(count: int, total: int) -> str:
    """`count` of `total` in percent."""
    return f"{100 * count / total:.3g} %"


def number(value: float) -> str:
    """`value` in full when it is whole and no giant, else to five significant digits."""
    if isinstance(value, float) and abs(value) >= 1e15:
        return f"{value:.5g}"
    if not float(value).is_integer():
        value = float(f"{value:.5g}")
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,g}"


def _exception(info: Mapping[str, Any]) -> str | None:
    """The first message; Great Expectations keys them by metric when a metric was to blame."""
    for entry in [info] if "raised_exception" in info else info.values():
        if entry["raised_exception"]:
            message = str(entry["exception_message"]).strip().split("\n")[0]
            return OTHER_TYPE if _IS_OTHER_TYPE in message else shorten(message)
    return None


def _finding(details: Mapping[str, Any]) -> str:
    """The rows that offend, or how sets differ, or the value observed; empty for no offence."""
    unexpected, missing = details.get("unexpected_count"), details.get("missing_count") or 0
    if details.get("element_count") is not None:
        if not unexpected:
            return ""
        total = int(details["element_count"]) - missing
        rows = "rows with a value" if missing else "rows"
        return f"fails in {unexpected:,} of {total:,} {rows} ({share(unexpected, total)})"
    if unexpected is not None or "missing_count" in details:
        surplus, lack = details.get("partial_unexpected_list"), details.get("partial_missing_list")
        # In the order of a set: which of many are listed changes from run to run.
        lack = sorted(lack or [], key=str) if missing == len(lack or []) else []
        parts = [f"{unexpected:,} too many ({_plain(surplus)})"] if unexpected else []
        if missing:
            parts.append(f"{missing:,} missing" + (f" ({_plain(lack)})" if lack else ""))
        return ", ".join(parts)
    mismatched = (details.get("details") or {}).get("mismatched")
    if isinstance(mismatched, list) and mismatched:
        first = mismatched[0]
        place = first["Expected Column Position"] + 1
        return f"column {place} is {_plain(first['Found'])}, not {_plain(first['Expected'])}"
    observed = mismatched or details.get("observed_value")
    return "" if observed is None else f"found {_plain(observed)}"


def _plain(value: object) -> str:
    """A value of Great Expectations, often a NumPy scalar, as short text."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    if isinstance(value, Mapping):
        return shorten("; ".join(f"{name}: {_plain(item)}" for name, item in value.items()))
    if isinstance(value, list | tuple):
        return shorten(", ".join(_plain(item) for item in value))
    return "nothing" if value is None else shorten(value)


def _examples(rows: list[int], contents: pl.DataFrame) -> tuple[str, ...]:
    """Different offending values, each with the first rows (from 0) that hold it.

    From the table: what Great Expectations hands back has been through pandas.
    """
    if not rows:
        return ()
    alike: dict[int, list[int]] = {}
    for place, content in enumerate(contents.hash_rows()):
        alike.setdefault(content, []).append(place)
    shown = contents.select(n for n, dtype in contents.schema.items() if not is_nested(dtype))
    return tuple(
        _example(shown.row(same[0], named=True) if shown.width else {}, [rows[n] for n in same])
        for same in list(alike.values())[:MAX_EXAMPLES]
    )


def _example(cells: Mapping[str, object], rows: list[int]) -> str:
    texts = {k: repr(v) if isinstance(v, str) else str(v) for k, v in cells.items()}
    where = f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:MAX_ROWS_NAMED]))}"
    where += ", …" if len(rows) > MAX_ROWS_NAMED else ""
    if all(value is None for value in cells.values()):
        return where
    if len(texts) == 1:
        return f"{shorten(*texts.values())} ({where})"
    return f"{', '.join(f'{name} {shorten(text)}' for name, text in texts.items())} ({where})"
