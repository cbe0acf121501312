"""Arms beside the recipe as it is: on the same rows, folds and seeds."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from stages.features.numbers import Rows
from stages.features.schema import Moments
from stages.model.calibration import to_probabilities
from stages.tools.advise.measure.arms import INCUMBENT, Arm, Incumbent
from stages.tools.advise.measure.judge import QUICK, Estimate, Floats, Metric, estimate
from stages.tools.advise.measure.rows import NUM_FOLDS, Change, Pool, Split, constant_scores
from stages.tools.advise.measure.trainings import AT_ONCE, Job, Journal, Outcome, train_all
from stages.training.params import CalibrationParams
from stages.training.recipe import seed_of, seed_of_fold

# Seeds of trainings that differ in nothing else.
NUM_SEEDS = 3
# Numbers from which on a slow metric is asked less often, and the groups that then are left out.
MANY_NUMBERS, FEW_GROUPS = 100_000, 10
Kept = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class At:
    """A place where arms are compared: a repeat, and the share of the rows."""

    repeat: int
    share: float


@dataclass(frozen=True)
class Asked:
    """A training of an arm: on which fold of a repeat, and by which of several seeds."""

    arm: Arm
    at: At
    fold: int
    draw: int = 0

    @property
    def name(self) -> str:
        """Its name in the journal."""
        place = f"repeat {self.at.repeat} fold {self.fold} share {self.at.share:g}"
        return f"{self.arm.name} | {place} seed {self.draw}"


@dataclass(frozen=True)
class Judged:
    """The rows (rows,) that a training is judged on, and its scores for them (rows, outputs).

    `scale` is that of the target that it has learned.
    """

    rows: Rows
    scores: Floats
    calibration: CalibrationParams
    scale: Moments


@dataclass
class Study:
    """All trainings so far, and the time that they may take.

    `known_splits` are those of places that were asked for.
    """

    incumbent: Incumbent
    metric: Metric
    journal: Journal
    budget_seconds: float
    began: float = field(default_factory=time.monotonic)
    known_splits: dict[At, list[Split]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # What an earlier run took, which was killed.
        self.before = self.journal.seconds

    @property
    def pool(self) -> Pool:
        """All rows."""
        return self.incumbent.pool

    @property
    def seconds(self) -> float:
        """The seconds that have gone by, in an earlier run too."""
        return self.before + time.monotonic() - self.began

    def after(self, share: float) -> float:
        """The second at which a share of the time that is left now will be over."""
        return self.seconds + share * max(0.0, self.budget_seconds - self.seconds)

    def splits(self, at: At) -> list[Split]:
        """The splits of a place."""
        if at not in self.known_splits:
            self.known_splits[at] = self.pool.splits(at.repeat, at.share)
        return self.known_splits[at]

    def folds(self, at: At) -> range:
        """The numbers of a place's folds."""
        return range(len(self.splits(at)))

    def run(self, asked: Iterable[Asked], until_seconds: float) -> None:
        """Train what is asked for and not known; none begins after `until_seconds`."""
        parts = {part.name: part for one in asked for part in self.trainings_of(one)}
        jobs = [self.job(part) for part in parts.values()]
        num_bytes = sum(values.nbytes for values in self.pool.rows.batch.values())
        # What has begun goes on to its end: together no more than a quarter of the time.
        seconds = mean_of_known([self._known_seconds(part.at) for part in parts.values()])
        room = (until_seconds - self.seconds) / (4 * seconds) if seconds > 0 else AT_ONCE
        at_once = max(1, min(AT_ONCE, int(min(room, AT_ONCE))))
        train_all(jobs, self.journal, num_bytes, at_once, lambda: self.seconds < until_seconds)

    def _known_seconds(self, at: At) -> float | None:
        """The seconds of the recipe's first training on the same share, if it is known."""
        for repeat in (at.repeat, 0):
            found = self.outcome(Asked(INCUMBENT, replace(at, repeat=repeat), 0))
            if found is not None:
                return found.seconds
        return None

    def job(self, asked: Asked) -> Job:
        """The training that is asked for."""
        recipe, spec = self.incumbent.recipe(asked.arm.overrides)
        split = self.splits(asked.at)[asked.fold]
        change = asked.arm.change or Change()
        # Each fold of each repeat has seeds of its own, which all arms share.
        seed = seed_of_fold(seed_of(self.pool.seed, asked.at.repeat), asked.fold)
        seed = seed_of(seed, asked.draw)
        may_fail = asked.arm is not INCUMBENT
        return Job(
            asked.name, recipe, spec, lambda: self.pool.divide(split, change), seed, may_fail
        )

    def outcome(self, asked: Asked) -> Outcome | None:
        """The end of a training, or of the mean of several; None: they were not trained."""
        found = [self.journal.outcomes.get(each.name) for each in self.trainings_of(asked)]
        known = [outcome for outcome in found if outcome is not None and not outcome.failure]
        if len(known) < len(found):
            return None
        if len(known) == 1:
            return known[0]
        scores = [o.scores.astype(np.float64) for o in known if o.scores is not None]
        seconds = sum(outcome.seconds for outcome in known)
        if len(scores) < len(known):
            return Outcome(None, seconds)
        return Outcome(mean_scores(scores, self.metric).astype(np.float32), seconds)

    def trainings_of(self, asked: Asked) -> list[Asked]:
        """The trainings behind one that is asked for: of what needs none, those of the recipe."""
        if asked.arm is INCUMBENT or (asked.arm.trains and asked.arm.num_draws == 1):
            return [asked]
        draws = range(asked.arm.num_draws) if asked.arm.num_draws > 1 else [asked.draw]
        return [replace(asked, arm=INCUMBENT, draw=draw) for draw in draws]

    def failure(self, arm: Arm) -> str:
        """The reason why an arm could not be trained; empty where it could."""
        failures = (
            outcome.failure
            for name, outcome in self.journal.outcomes.items()
            if name.startswith(f"{arm.name} | ")
        )
        return next((failure for failure in failures if failure), "")

    def value(self, asked: Asked, rows_out: Rows | None = None) -> float | None:
        """The metric of a training with the sign of what is better.

        `rows_out` are not judged on. None: it was not trained. One that diverged predicts the same
        for all rows.
        """
        judged = self._judge(asked)
        if judged is None:
            return None
        kept = None if rows_out is None else ~np.isin(judged.rows, rows_out)
        return self._measure(judged, kept)

    def _judge(self, asked: Asked) -> "Judged | None":
        outcome, split = self.outcome(asked), self.splits(asked.at)[asked.fold]
        if outcome is None:
            return None
        scores = constant_scores(self.pool, split)
        scale = self.pool.data.scale
        if outcome.scores is not None:
            scores = outcome.scores.astype(np.float64)
            scale = self.pool.scale_of(asked.arm.change or Change())
        calibration = self.incumbent.recipe(asked.arm.overrides)[0].calibration
        return Judged(split.validated, scores, calibration, scale)

    def _measure(self, judged: "Judged", kept: Kept | None) -> float:
        rows, scores = judged.rows, judged.scores
        if kept is not None:
            rows, scores = rows[kept], scores[kept]
        how = judged.calibration, judged.scale
        return self.metric.sign * self.metric.measure(self.pool, rows, scores, *how)

    def estimate(
        self,
        arm: Arm,
        places: Sequence[At],
        rows_out: Rows | None = None,
        base: Arm = INCUMBENT,
    ) -> Estimate | None:
        """The gain of an arm over `base`, the recipe as it is, where both were trained.

        `rows_out` are not judged on. None where too little of it is known.
        """
        pairs = [
            (ours, theirs)
            for at in places
            for fold in self.folds(at)
            if (ours := self._judge(Asked(arm, at, fold))) is not None
            and (theirs := self._judge(Asked(base, at, fold))) is not None
        ]
        if not pairs:
            return None
        left_out = self.pool.groups_to_leave_out()
        if rows_out is not None:
            left_out = left_out.copy()
            left_out[rows_out] = -1

        def gains(group: int | None) -> list[float]:
            found = []
            for ours, theirs in pairs:
                own = left_out[ours.rows]
                kept = own >= 0 if group is None else (own >= 0) & (own != group)
                found.append(self._measure(ours, kept) - self._measure(theirs, kept))
            return found

        numbers = sum(ours.scores.size for ours, _ in pairs)
        if self.metric.name not in QUICK and numbers > MANY_NUMBERS:
            # A metric that sorts or counts takes its time: fewer groups, each of more rows.
            left_out = np.where(left_out >= 0, left_out % FEW_GROUPS, -1)
        known = np.unique(left_out[np.concatenate([ours.rows for ours, _ in pairs])])
        without = [mean_of_known(gains(group)) for group in known if group >= 0]
        num_folds = 1 if self.pool.schema.ordered else NUM_FOLDS
        judged = np.unique(np.concatenate([ours.rows for ours, _ in pairs]))
        return estimate(gains(None), without, num_folds, self.metric.step(len(judged)))

    def is_measured(self, arm: Arm, at: At, base: Arm = INCUMBENT) -> bool:
        """Check whether an arm and `base`, the recipe as it is, were trained on all folds."""
        pairs = (Asked(each, at, fold) for each in (base, arm) for fold in self.folds(at))
        return all(self.outcome(asked) is not None for asked in pairs)

    def measured(self, arm: Arm, places: Sequence[At]) -> list[At]:
        """The places where an arm was measured on all folds."""
        return [at for at in places if self.is_measured(arm, at)]

    def luck(self, at: At) -> float | None:
        """The standard deviation, between seeds, of the metric as the mean over folds.

        None where too little of it is known.
        """
        means = [
            mean_of_known([self.value(Asked(INCUMBENT, at, fold, draw)) for fold in self.folds(at)])
            for draw in range(NUM_SEEDS)
        ]
        known = [mean for mean in means if math.isfinite(mean)]
        return float(np.std(known, ddof=1)) if len(known) > 1 else None

    def out_of_fold(self, at: At) -> tuple[Rows, Floats] | None:
        """The rows of a place and what trainings that have not seen them give for each.

        Mean probabilities (rows, classes) over the seeds that are known, or values (rows, 1).
        """
        rows, parts = [], []
        for fold, split in enumerate(self.splits(at)):
            asked = [Asked(INCUMBENT, at, fold, draw) for draw in range(NUM_SEEDS)]
            known = [o for each in asked if (o := self.outcome(each)) is not None]
            scores = [o.scores.astype(np.float64) for o in known if o.scores is not None]
            if not scores:
                return None
            rows.append(split.validated)
            parts.append(mean_scores(scores, self.metric))
        return np.concatenate(rows), np.concatenate(parts)


def mean_of_known(values: Sequence[float | None]) -> float:
    """The mean of the values that there are; NaN where there is none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def mean_scores(scores: Sequence[Floats], metric: Metric) -> Floats:
    """Scores of the mean prediction: logarithms of mean probabilities, or mean values."""
    if len(scores) == 1:
        return scores[0]
    if metric.task == "regression":
        return np.asarray(np.mean(scores, axis=0))
    shares = np.mean([to_probabilities(each) for each in scores], axis=0)
    return np.asarray(np.log(np.maximum(shares, 1e-12)))
