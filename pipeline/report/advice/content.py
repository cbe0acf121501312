"""The content of `.reprise/advise/report.json`, and how its numbers are said."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.common.files import read_json

FOLDER = Path(".reprise/advise")
REPORT = FOLDER / "report.json"
AXES = ("data", "model", "loss", "optimizer")


@dataclass(frozen=True)
class Report:
    """All that was found out, as `stages/tools/advise/findings.py` writes it."""

    content: dict[str, Any]

    @property
    def advice(self) -> list[dict[str, Any]]:
        """All changes that were measured at length, in their order."""
        return list(self.content["advice"])

    @property
    def sure(self) -> list[dict[str, Any]]:
        """Those that are surely better, and alarms."""
        return [each for each in self.advice if each["sure"]]

    @property
    def unknown(self) -> list[dict[str, Any]]:
        """Those that may be no better."""
        return [each for each in self.advice if not each["sure"]]

    def headline(self) -> str:
        """The answer in a sentence."""
        if not self.sure:
            return "Nothing that was tried is surely better than the recipe as it is."
        first = self.sure[0]
        if first["is_alarm"]:
            return f"Look at the data first: {first['evidence']}."
        return f"The {first['axis']} first: {first['change']} ({self.gain(first)})."

    def measured_how(self) -> str:
        """The recipe's own metric, and on what it was measured."""
        content = self.content
        share, num_repeats = content["share"], content["num_repeats"]
        part = "" if share == 1 else f"{share:.4g} of "
        often = "" if num_repeats == 1 else f", divided {num_repeats} times"
        folds = "" if content["num_folds"] == 1 else f"{content['num_folds']} folds of "
        return (
            f"{content['model']} as it is: {content['metric']} {self._known('value', '.4g')}, on "
            f"{folds}{part}{content['num_rows']:,} rows of train and validation{often}. No test "
            "row was looked at."
        )

    def luck(self) -> str:
        """The noise floor."""
        said = f"The seed alone moves it by ± {self._known('luck', '.2g')}"
        smallest = self.content["detectable"]
        if smallest is not None:
            said += f"; a gain below {smallest:.2g} can't be told from luck with this budget"
        return f"{said}."

    def limits(self) -> str:
        """The gap between train and validation, in words."""
        train, validation = self._known("train_loss", ".3g"), self._known("validation_loss", ".3g")
        return f"Loss {train} on the rows that it has learned from, {validation} on others."

    def _known(self, name: str, form: str) -> str:
        value = self.content[name]
        return "unknown" if value is None else format(value, form)

    def axes(self) -> list[str]:
        """A sentence or two on each axis: what is not worth touching, as far as was tried."""
        found = []
        for tried in self.content["axes"]:
            count, on_all = tried["num_changes"], tried["num_on_all_folds"]
            interval = f"{tried['gain']:+.3g} [{tried['low']:+.3g}, {tried['high']:+.3g}]"
            if on_all > 1:
                which = f"the best of the {on_all} tried on all folds ({count} in short)"
            else:
                which = "the one tried" + ("" if count == 1 else f" on all folds, of {count}")
            sentence = f"{tried['axis']}: {tried['best']}, {which}: {interval}"
            if not any(each["axis"] == tried["axis"] for each in self.sure):
                most = tried["most"]
                if on_all > 1:
                    worth = "helps" if most <= 0 else f"gains more than {most:.2g}"
                    sentence += f"; none of these {worth}"
                else:
                    sentence += "; it does not help" if most <= 0 else f"; at most {most:.2g}"
            found.append(f"{sentence}.")
        return found

    @property
    def slices(self) -> list[tuple[str, str, str, str]]:
        """The rows on which the recipe is worst: which, how many, the metric there and on all."""
        return [
            (
                f"more rows of {each['column'] or repr('')}: {each['label']}",
                f"{each['rows']:,}",
                f"{each['value']:.4g} [{each['low']:.4g}, {each['high']:.4g}]",
                f"{each['whole']:.4g}",
            )
            for each in self.content["slices"]
        ]

    def gain(self, advice: dict[str, Any]) -> str:
        """A gain with its interval."""
        ends = f"[{advice['low']:+.4f}, {advice['high']:+.4f}]"
        return f"{advice['gain']:+.4f} {ends}"

    def meaning(self) -> str:
        """The sign of a gain."""
        metric = self.content["metric"]
        way = "less of it" if self.content["less_is_better"] else "more of it"
        return (
            f"A gain is in {metric}, above 0 better ({way}); within its interval lies what other "
            "rows and other seeds would give, 95 times in a hundred."
        )


SLICES = (
    "Here the recipe as it is is surely worse than on all rows, by trainings that have not seen "
    "them. What more such rows bring was not measured: they may be harder by nature, or lack a "
    "column that tells them apart."
)


def read_report() -> Report:
    """The last report. Raises UserError when there is none."""
    if not REPORT.exists():
        raise UserError(f"there is no {REPORT}: run 'reprise advise' first")
    return Report(read_json(REPORT))
