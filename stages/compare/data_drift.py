"""The effects of a change on the prepared data: rows, columns, classes, and drift column by column.

    python -m stages.compare.data_drift < sides.json

Prints JSON; `reprise report` starts it. `sides.json` names the files of both revisions:
`{"before": {"schema.json": …, "statistics.json": …, "train": {"key.npy": …}, …}, "after": …}`.

Drift compares the train rows, whose means and deviations are those of `statistics.json`. The
limits are those of `stages.features.drift`, as for new rows in infer: the mean by more than 0.25
of the deviations before and more than four standard errors of the difference, the spread by 1.5
times in 100 rows or more (that of a constant column is taken as 1, as there), more than 5 % of
the rows in categories that came or went. A share of empty rows that differs by more than 5 points
and four standard errors counts as well.
"""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from stages.common.files import rounded
from stages.common.yamlfile import yaml_text
from stages.compare.revision_data import SPLITS, Side, load_side
from stages.features.drift import (
    MAX_SHIFT,
    MAX_SPREAD,
    MAX_UNSEEN,
    MIN_ERRORS,
    mean_has_drifted,
    spread_has_drifted,
)
from stages.features.kind import kind_of
from stages.features.numbers import Encoded, take_column
from stages.features.schema import CODES, Feature, Moments, Place, Schema

Places = dict[str, Place]


@dataclass(frozen=True)
class Column:
    """The difference of a column's train rows. What its kind does not have is None.

    `shift` and `spread` are in deviations before; `empty` are shares of rows; `new` is the share
    of rows now in categories that were not there, `gone` that of rows before in categories that
    are no more.
    """

    column: str
    shift: float | None = None
    spread: float | None = None
    empty: tuple[float, float] = (0.0, 0.0)
    new: float | None = None
    gone: float | None = None
    drifted: bool = False

    @property
    def size(self) -> float:
        """The size of the difference, in units of what counts as drift."""
        sizes = [abs(self.shift or 0.0) / MAX_SHIFT, (self.new or 0.0) / MAX_UNSEEN]
        sizes += [(self.gone or 0.0) / MAX_UNSEEN, abs(np.subtract(*self.empty)) / MAX_UNSEEN]
        if self.spread is not None:
            sizes.append(abs(math.log(self.spread)) / math.log(MAX_SPREAD))
        return max(sizes)


def compare_prepared(before: Side, after: Side) -> dict[str, Any]:
    """Rows by split, columns that came, went or changed, classes, and drift, largest first.

    `not_compared` has a line for a target whose drift can't be told.
    """
    places = (before.schema.places(), after.schema.places())
    common = _common(before.schema, after.schema)
    columns = [measure(feature, before, after, places) for feature in common]
    columns += _target(before, after)
    drift = sorted((c for c in columns if c.drifted or c.size > 0), key=lambda c: -c.size)
    return {
        "rows": list(_rows(before, after)),
        "columns": _columns(before.schema, after.schema),
        "classes": _classes(before.schema, after.schema),
        "drift": [asdict(column) for column in drift],
        "not_compared": _other_scale(before, after),
    }


def measure(feature: Feature, before: Side, after: Side, places: tuple[Places, Places]) -> Column:
    """The difference of a column that both sides have as the same kind."""
    sides = before, after
    columns = [_column(feature.name, *each) for each in zip(sides, places, strict=True)]
    gaps = [column.gaps for column in columns]
    counts = [int((~each).sum()) for each in gaps]
    own = [_feature(feature.name, side) for side in sides]
    moments = [
        kind_of(feature.kind).profile(each, column, side.statistics.of(each))
        for each, column, side in zip(own, columns, sides, strict=True)
    ]
    if feature.kind in CODES:
        found = [_categories(feature.name, before, after, columns)]
    else:
        pairs = zip(*moments, strict=True)
        found = [_moved(feature.name, *pair, *counts) for pair in pairs]
    column = max(found, key=lambda each: each.size, default=Column(feature.name))
    shares = (rounded(float(gaps[0].mean())), rounded(float(gaps[1].mean())))
    drifted = column.drifted or _differ(shares, [len(each) for each in gaps])
    return replace(column, empty=shares, drifted=drifted)


def _moved(name: str, was: Moments, now: Moments, num_before: int, num_after: int) -> Column:
    """Mean and spread. The error of the difference has a part from each side's rows.

    A column that is constant on a side has no spread there to compare with.
    """
    if was.constant or now.constant:
        shift = rounded((now.mean - was.mean) / (now if was.constant else was).deviation)
        return Column(name, shift, drifted=was.constant != now.constant or was.mean != now.mean)
    shift = rounded((now.mean - was.mean) / was.deviation)
    spread = rounded(now.deviation / was.deviation)
    num_rows = 1 / (1 / max(1, num_before) + spread**2 / max(1, num_after))
    drifted = mean_has_drifted(shift, num_rows)
    drifted |= spread_has_drifted(spread, min(num_before, num_after))
    return Column(name, shift, spread, drifted=drifted)


def _differ(shares: tuple[float, float], num_rows: list[int]) -> bool:
    """Check whether the shares of empty rows differ by more than few rows make them."""
    step, both = abs(shares[1] - shares[0]), sum(shares) / 2
    error = math.sqrt(both * (1 - both) * sum(1 / max(1, num) for num in num_rows))
    return step > MAX_UNSEEN and step > MIN_ERRORS * error


def _categories(name: str, before: Side, after: Side, columns: list[Encoded]) -> Column:
    known = [_feature(name, side).categories or [] for side in (before, after)]
    codes = [np.asarray(column.values[:, 0]) for column in columns]
    came = [code for code, text in enumerate(known[1], start=1) if text not in known[0]]
    went = [code for code, text in enumerate(known[0], start=1) if text not in known[1]]
    new, gone = (
        rounded(float(np.isin(side, wanted).mean()))
        for side, wanted in ((codes[1], came), (codes[0], went))
    )
    return Column(name, new=new, gone=gone, drifted=max(new, gone) > MAX_UNSEEN)


def _target(before: Side, after: Side) -> Iterator[Column]:
    was, now = before.statistics.target, after.statistics.target
    if (
        was is not None
        and now is not None
        # Moments of a value and of its logarithm have nothing to tell each other: `_other_scale`.
        and was.transform == now.transform
        and before.schema.target.name == after.schema.target.name
    ):
        counts = [len(side.train["key"]) for side in (before, after)]
        yield _moved(before.schema.target.name, was, now, counts[0], counts[1])


def _other_scale(before: Side, after: Side) -> list[str]:
    """The target whose drift can't be told, as a line: it is learned on another scale now."""
    was, now = (side.statistics.target for side in (before, after))
    name = after.schema.target.name
    if was is None or now is None or before.schema.target.name != name:
        return []
    if was.transform == now.transform:
        return []
    return [f"the target '{name}', learned {_scale(was)} before and {_scale(now)} after"]


def _scale(moments: Moments) -> str:
    return "as it is" if moments.transform is None else f"as its {moments.transform}"


def _feature(name: str, side: Side) -> Feature:
    return next(feature for feature in side.schema.features if feature.name == name)


def _column(name: str, side: Side, places: Places) -> Encoded:
    return take_column(_feature(name, side), places.get(name), side.train)


def _common(before: Schema, after: Schema) -> list[Feature]:
    """The features that both have, as the same kind and shape, in the order they have now."""
    known = {feature.name: feature for feature in before.features}
    return [
        feature
        for feature in after.features
        if feature.name in known and _said(known[feature.name]) == _said(feature)
    ]


def _columns(before: Schema, after: Schema) -> list[dict[str, str | None]]:
    """The columns that came (before: None), went (after: None), or are of another kind."""
    sides = [
        {feature.name: _said(feature) for feature in side.features} for side in (before, after)
    ]
    for side, described in zip((before, after), sides, strict=True):
        described[side.target.name] = f"target ({side.target.task})"
        if side.key is not None:
            described.setdefault(side.key, "row key")
    was, now = sides
    return [
        {"column": name, "before": was.get(name), "after": now.get(name)}
        for name in {**was, **now}
        if was.get(name) != now.get(name)
    ]


def _said(feature: Feature) -> str:
    """The kind of a feature, with the shape of an image, and whether dates are a calendar."""
    shape = "" if feature.shape is None else " " + " x ".join(map(str, feature.shape))
    return feature.kind + shape + (" (calendar)" if feature.calendar else "")


def _classes(before: Schema, after: Schema) -> dict[str, list[str]]:
    was, now = ([yaml_text(c) for c in side.target.classes or []] for side in (before, after))
    came = [name for name in now if name not in was]
    return {"came": came, "went": [name for name in was if name not in now]}


def _rows(before: Side, after: Side) -> Iterator[dict[str, Any]]:
    """Numbers of rows of each split: before, after, new, gone, and from another split."""
    keys = [
        {name: np.asarray(arrays["key"]) for name, arrays in side.splits.items()}
        for side in (before, after)
    ]
    comparable = before.schema.key is not None and before.schema.key == after.schema.key
    everything = [np.concatenate(list(side.values())) for side in keys]
    comparable &= everything[0].dtype.kind == everything[1].dtype.kind
    for split in SPLITS:
        was, now = keys[0][split], keys[1][split]
        row: dict[str, Any] = {"split": split, "before": len(was), "after": len(now)}
        if comparable:
            known = np.isin(now, everything[0])
            row["new"] = int((~known).sum())
            row["gone"] = int((~np.isin(was, everything[1])).sum())
            row["moved_in"] = int((known & ~np.isin(now, was)).sum())
        yield row


def main() -> None:
    """Compare the sides that standard input names."""
    files = json.load(sys.stdin)
    before, after = (load_side(files[name]) for name in ("before", "after"))
    print(json.dumps(compare_prepared(before, after), ensure_ascii=False))


if __name__ == "__main__":
    main()
