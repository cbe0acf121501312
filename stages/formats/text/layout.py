"""The first lines of a CSV file: its separator, the titles above its header, and its header.

Each is taken from the first lines by a rule, and said where it is not what the suffix promises:

- The separator is that of the suffix, unless its lines then differ in their number of fields and
  one other of `,` `;` tab `|` makes them all equal. A first line `sep=;` says it.
- Titles are lines of one text above the first line with as many fields as most have.
- Without a header is a file whose first line holds numbers in every column that holds numbers
  below, other than names that count up, as 2019, 2020, 2021. Its columns are column_1, column_2, …

Names that are asked for, by parameters or by a model, settle what is a header.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from stages.common.errors import shorten
from stages.formats.text.csv_scan import (
    LINE_END,
    Form,
    count_fields,
    next_record,
    split_fields,
)
from stages.formats.text.header import are_numbers, check_names, is_header, numbered

SEPARATORS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
NUM_RECORDS = 50
# Of the lines have as many fields as the header.
MOST = 0.8
_SEP = re.compile(rb'"?sep=([,;|\t])"?[ \t]*(?:\r\n|\n|\r)', re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """The names of the columns, and the place in bytes and the line (from 1) of the first row.

    `remarks` are what a person should know; `has_header`: the file has the names itself.
    """

    separator: str
    names: list[str]
    start: int
    line: int
    has_header: bool
    remarks: list[str]


@dataclass(frozen=True)
class _Row:
    """A record: where it begins and ends, its lines, and its fields.

    `is_doubtful`: a quote stands within a field, as it does where another separator is meant.
    """

    place: int
    end: int
    line: int
    next_line: int
    fields: list[str]
    is_doubtful: bool

    @property
    def is_title(self) -> bool:
        """Check whether one field at most holds something, of one or of three and more."""
        filled = sum(bool(text) for text in self.fields)
        return filled <= 1 and len(self.fields) != 2


@dataclass(frozen=True)
class _Trial:
    """The first rows by one separator: `header` is the place of the first one that is no title.

    `num_named`: how many names that are asked for stand in it.
    """

    separator: str
    rows: list[_Row]
    header: int
    num_named: int

    @property
    def width(self) -> int:
        return len(self.rows[self.header].fields)

    @property
    def share(self) -> float:
        """The share of the rows that are as wide as the first one; 0 of one column."""
        below = self.rows[self.header :]
        alike = sum(len(row.fields) == self.width for row in below)
        return alike / len(below) if self.width > 1 else 0.0


def find_layout(
    data: bytes, separator: str, expected: Collection[str] = (), *, is_last: bool
) -> Layout | None:
    """The layout of a file that begins with `data`; None where more bytes are needed to tell.

    `separator` is that of the suffix. Raises ValueError where there is no header that holds.
    """
    said = _SEP.match(data)
    begin, line = (said.end(), 2) if said else (0, 1)
    named = said[1].decode() if said else None
    reason = ""
    try:
        first = read_rows(data, named or separator, begin, line, is_last=is_last)
    except ValueError as error:
        # By another separator, its quotes may be in place.
        first, reason = [], str(error)
    own = _try(first, named or separator, expected) if first else None
    trial = own
    if named is None and (own is None or own.share < 1 or _could_be_other(own, separator)):
        others = [
            _try(rows, other, expected)
            for other in SEPARATORS
            if other != separator and (rows := _safely(data, other, is_last=is_last))
        ]
        trial = _best(own, others)
    if trial is None and reason:
        raise ValueError(reason)
    return None if trial is None else _lay_out(trial, separator, expected, named)


def lay_out_rows(
    rows: Sequence[list[str]], lines: Sequence[int], expected: Collection[str]
) -> Layout:
    """The layout of rows that need no separator; `start` counts the rows above the first one.

    `lines` are their numbers in the sheet, from 1.
    """
    first = [
        _Row(n, n + 1, line, line + 1, fields, False)
        for n, (line, fields) in enumerate(zip(lines, rows, strict=True))
    ]
    trial = _try(first, "", expected)
    return _lay_out(trial, trial.separator, expected, None)


def read_rows(data: bytes, separator: str, place: int, line: int, *, is_last: bool) -> list[_Row]:
    """The first rows of `data` that can be read. Raises ValueError where the first one can't."""
    form = Form(separator)
    rows: list[_Row] = []
    while place < len(data) and len(rows) < NUM_RECORDS:
        record = next_record(data, place, form, line, is_last=is_last)
        if record is None:
            break
        if record.reason and not rows:
            raise ValueError(record.reason)
        following = line + len(LINE_END.findall(data, place, record.end))
        if record.content is not None:
            texts = split_fields(record.content, form)
            fields = [text.decode("utf-8", "replace").strip() for text in texts]
            loose = b'"' in record.content and _has_loose_quote(data, place, record.end, form)
            rows.append(_Row(place, record.end, line, following, fields, loose))
        place, line = record.end, following
    return rows


def _has_loose_quote(data: bytes, place: int, end: int, form: Form) -> bool:
    while place < end and (found := form.field.match(data, place, end)):
        if found[1] is None and b'"' in found[2]:
            return True
        place = found.end() + 1
    return False


def _safely(data: bytes, separator: str, *, is_last: bool) -> list[_Row]:
    try:
        rows = read_rows(data, separator, 0, 1, is_last=is_last)
    except ValueError:
        return []
    return [] if any(row.is_doubtful for row in rows) else rows


def _could_be_other(trial: _Trial, separator: str) -> bool:
    fields = trial.rows[trial.header].fields
    return any(other in text for text in fields for other in SEPARATORS if other != separator)


def _try(rows: list[_Row], separator: str, expected: Collection[str]) -> _Trial:
    lead = next((place for place, row in enumerate(rows) if not row.is_title), 0)
    named = [sum(text in expected for text in row.fields if text) for row in rows[: lead + 1]]
    if most := max(named):
        return _Trial(separator, rows, named.index(most), most)
    widths = Counter(len(row.fields) for row in rows[lead:])
    width, how_many = widths.most_common(1)[0]
    fields = rows[lead].fields
    fits = width == len(fields) and how_many >= MOST * len(rows[lead:]) and how_many > 1
    return _Trial(separator, rows, lead if fits and not are_numbers(fields) else 0, 0)


def _best(own: _Trial | None, others: Sequence[_Trial]) -> _Trial | None:
    """The trial by another separator where that alone fits. Raises ValueError where two fit."""
    fits = [each for each in others if each.share == 1 and len(each.rows) > each.header + 1]
    most = max((each.num_named for each in fits), default=0)
    named = [each for each in fits if most and each.num_named == most]
    fits = named or fits
    if own is not None:
        if own.num_named >= max(most, 1) and own.width > 1:
            return own
        if own.share == 1 and own.header == 0 and not named:
            same = [each for each in fits if each.header == 0]
            if not same or len(own.rows) == 1:
                return own
            fits = [own, *same]
        elif own.share >= MOST and not named and all(each.header for each in fits):
            return own
    if len(fits) > 1:
        shown = " or ".join(SEPARATORS[each.separator] for each in fits)
        raise ValueError(
            f"its columns may be divided by {shown}: write the right one into a line of its own "
            f"above the header, as sep={fits[0].separator}"
        )
    return fits[0] if fits else own


def _lay_out(trial: _Trial, separator: str, expected: Collection[str], named: str | None) -> Layout:
    row, remarks = trial.rows[trial.header], []
    # A sheet's rows have numbers of their own.
    unit = "line" if separator else "row"
    if named is not None:
        remarks.append(f"is divided by {SEPARATORS[named]}, as its first line says")
    elif trial.separator != separator:
        remarks.append(f"is divided by {SEPARATORS[trial.separator]}, and read so")
    below = [r.fields for r in trial.rows[trial.header + 1 :] if len(r.fields) == trial.width]
    has_header = trial.num_named > 0 or is_header(row.fields, below, expected)
    _check_widths(trial)
    if trial.header:
        shown = next((text for text in trial.rows[0].fields if text), "")
        num = trial.header
        remarks.append(
            f"has {num} {unit}{'s' if num > 1 else ''} above its header, which begins in {unit} "
            f"{row.line}: left out, the first is {shown!r}"
        )
    if has_header:
        check_names(row.fields, below)
        return Layout(trial.separator, row.fields, row.end, row.next_line, True, remarks)
    names = numbered(trial.width)
    remarks.append(
        f"has no header: its first {unit} ({shorten(', '.join(row.fields))}) holds numbers where "
        f"the columns do; they are called column_1 to column_{trial.width}"
    )
    return Layout(trial.separator, names, row.place, row.line, False, remarks)


def _check_widths(trial: _Trial) -> None:
    """Raise ValueError where most lines are wider or narrower than the header."""
    below = trial.rows[trial.header + 1 :]
    widths = Counter(len(row.fields) for row in below)
    if len(below) < 3 or trial.width in widths:
        return
    width, how_many = widths.most_common(1)[0]
    first = trial.rows[trial.header].fields[0]
    if how_many < MOST * len(below):
        return
    if width == trial.width + 1 and trial.width > 1 and not first.startswith("#"):
        raise ValueError(
            f"its header has {trial.width} fields, and the lines below it {width}: give the first "
            "column a name, or remove what follows the last separator"
        )
    raise ValueError(_titles(trial))


def _titles(trial: _Trial) -> str:
    below = trial.rows[1:]
    width = Counter(len(row.fields) for row in below).most_common(1)[0][0]
    line = next(row.line for row in below if len(row.fields) == width)
    return (
        f"line {trial.rows[0].line} has {count_fields(len(trial.rows[0].fields))}, and those from "
        f"line {line} on {width}: remove titles and comments above the header"
    )
