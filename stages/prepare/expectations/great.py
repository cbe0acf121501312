"""Great Expectations itself: it judges a frame, or figures of a table that no frame holds.

Its import takes seconds: only a suite that holds something waits for it.
"""

import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from stages.common.errors import UserError
from stages.prepare.expectations.pandas_frame import to_pandas

# Counts, and the first rows that offend, which the table then tells about.
SUMMARY = "SUMMARY"
# All rows that offend.
COMPLETE = "COMPLETE"
# What a result needs of the rows that offend, beside their numbers: nothing that is shown.
_UNUSED: dict[str, Any] = {"unexpected_values": [], "unexpected_index_query": None}


@dataclass(frozen=True)
class Result:
    """A verdict in the form of Great Expectations' own."""

    success: bool
    result: Mapping[str, Any] = field(default_factory=dict)
    exception_info: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what Great Expectations and its libraries deprecate of each other."""
    with warnings.catch_warnings():
        # None of them the user's to mend.
        warnings.simplefilter("ignore")
        yield


def load_classes() -> dict[str, Any]:
    """The registry, name to class. Raises UserError for a Python that it can't run in."""
    if sys.flags.optimize > 1:
        raise UserError(
            "Great Expectations needs docstrings, which PYTHONOPTIMIZE=2 (python -OO) leaves out\n"
            "  unset PYTHONOPTIMIZE, or set it to 1"
        )
    with quiet():
        # The package registers its expectations.
        from great_expectations.expectations import registry

        names = sorted(registry.list_registered_expectation_implementations())
        return {name: registry.get_expectation_impl(name) for name in names}


def judge_frame(table: pl.DataFrame, expectations: list[Any]) -> list[Any]:
    """The result of each expectation of a table in memory, in their order."""
    with quiet():
        import great_expectations as gx

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("table")
        batch = asset.add_batch_definition_whole_dataframe("whole").get_batch(
            {"dataframe": to_pandas(table)}
        )
        suite = gx.ExpectationSuite(name="suite", expectations=expectations)
        results = batch.validate(suite, result_format=SUMMARY).results
    # They come back in another order.
    by_place = {result.expectation_config.meta["place"]: result for result in results}
    return [by_place[expectation.meta["place"]] for expectation in expectations]


class Engine:
    """Measures a frame: a part of a table, or one that stands in for it."""

    def __init__(self, table: pl.DataFrame, gaps: Collection[str]) -> None:
        from great_expectations.execution_engine import PandasExecutionEngine
        from great_expectations.validator.metrics_calculator import MetricsCalculator

        frame = to_pandas(table, gaps)
        self._engine = PandasExecutionEngine(batch_data_dict={"table": frame})
        self._calculator = MetricsCalculator(execution_engine=self._engine)
        self._calculator.show_progress_bars = False

    def needs(self, expectation: Any, form: str = SUMMARY) -> dict[str, Any]:
        """The metrics that a verdict on `expectation` needs, name to configuration."""
        dependencies = expectation.get_validation_dependencies(
            execution_engine=self._engine, runtime_configuration={"result_format": form}
        )
        configurations: dict[str, Any] = dependencies.metric_configurations
        return configurations

    def measure(
        self, expectation: Any, is_wanted: Callable[[str], bool] | None = None, form: str = SUMMARY
    ) -> dict[str, Any]:
        """The metrics of `expectation`, or those that are wanted, by their names.

        Raises MeasureError where one can't be computed.
        """
        needs = self.needs(expectation, form)
        wanted = {n: need for n, need in needs.items() if is_wanted is None or is_wanted(n)}
        form_of_all = {"result_format": form}
        graph = self._calculator.build_metric_dependency_graph(list(wanted.values()), form_of_all)
        found, failed = self._calculator.resolve_validation_graph(graph, form_of_all, 0)
        for failure in failed.values():
            raise MeasureError(failure["exception_info"].exception_message)
        return {name: found[needed.id] for name, needed in wanted.items()}

    def judge(self, expectation: Any, values: Mapping[str, Any]) -> Result:
        """The verdict on metrics by their names."""
        needs = self.needs(expectation)
        all_values = {name: _value(name, values) for name in needs}
        result = expectation.metrics_validate(
            {needed.id: all_values[name] for name, needed in needs.items()},
            runtime_configuration={"result_format": SUMMARY},
            execution_engine=self._engine,
        )
        return Result(result.success, result.result, result.exception_info)


class MeasureError(Exception):
    """A metric can't be computed: the mean of texts, such as it may be."""


def not_checked(error: Exception) -> Result:
    """The result of what raised `error`."""
    return Result(
        success=False, exception_info={"raised_exception": True, "exception_message": str(error)}
    )


def _value(name: str, values: Mapping[str, Any]) -> Any:
    if name in values:
        return values[name]
    return next(unused for ending, unused in _UNUSED.items() if name.endswith(ending))
