"""The plan: the stages that would run and why, before anything runs.

One process, no lock, nothing written: it works while a stage runs, and in a clone that pulled
nothing.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.common.dvc_repo import open_repo
from pipeline.params.work_pool import check_variables, find_work_pool, find_workers
from pipeline.plan.durations import read_seconds
from pipeline.plan.forecast import FRESH, Forecast
from pipeline.plan.reasons import Reason, describe
from stages.common.errors import UserError, wrong_name

__all__ = ["Reason", "StagePlan", "active_graph", "describe", "in_order", "make_plan", "named"]


@dataclass(frozen=True)
class StagePlan:
    """The plan for one stage: fresh, restorable or stale, and why.

    `upstream` names the stages that it directly follows, `meta` is the stage's in `dvc.yaml`,
    `last_seconds` how long its last run here took, `work_pool` where `reprise run` sends it, and
    `workers` how many more runs there help a search.
    """

    name: str
    state: str
    reasons: tuple[Reason, ...]
    upstream: tuple[str, ...]
    meta: Mapping[str, Any]
    last_seconds: float | None
    work_pool: str | None = None
    workers: int = 0


def make_plan(targets: Sequence[str] = (), *, lock_only: bool = False) -> list[StagePlan]:
    """The plan of the project in the current folder, upstream first.

    `targets` are stages, of which everything upstream is planned too; none means all. With
    `lock_only` it answers whether `dvc.lock` is current, for which no data is needed. A `.dvc`
    file has a place in the plan only when it is not fresh. Raises UserError for unknown targets
    and for project files that DVC can't read.
    """
    seconds = read_seconds()
    with _no_garbage(), open_repo() as repo:
        check_variables(s.addressing for s in repo.index.stages if not s.is_data_source)
        graph = active_graph(repo)
        order = in_order(repo, graph, targets)
        forecast = Forecast(repo, lock_only=lock_only)
        plans: list[StagePlan] = []
        for stage in order:
            expected = forecast.judge(stage)
            if stage.is_data_source and expected.state == FRESH:
                continue
            names = {plan.name for plan in plans}
            follows = sorted(s.addressing for s in graph.successors(stage) if s.addressing in names)
            name = stage.addressing
            plans.append(
                StagePlan(
                    name,
                    expected.state,
                    expected.reasons,
                    tuple(follows),
                    dict(stage.meta or {}),
                    seconds.get(name),
                    find_work_pool(name, stage.meta or {}),
                    find_workers(name, stage.meta or {}),
                )
            )
    return plans


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Look for no cycles meanwhile: of DVC's many small objects none is garbage yet.

    At 500 stages that is a third of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def active_graph(repo: Any) -> Any:
    """DVC's graph, each stage pointing at its upstream; a frozen stage follows nobody."""
    from dvc.repo.reproduce import get_active_graph

    return get_active_graph(repo.index.graph)


def in_order(repo: Any, graph: Any, targets: Sequence[str]) -> list[Any]:
    """The targets and all upstream of them, upstream first, else in the order of `dvc.yaml`.

    Raises UserError for a target that names no stage.
    """
    import networkx as nx

    place = {stage: index for index, stage in enumerate(repo.index.stages)}
    chosen = set(graph)
    if targets:
        requested = named(targets, list(place))
        chosen = set(requested).union(*(nx.descendants(graph, stage) for stage in requested))
    reverse = graph.subgraph(chosen).reverse()
    return list(nx.lexicographical_topological_sort(reverse, key=place.__getitem__))


def named(targets: Sequence[str], stages: Sequence[Any]) -> list[Any]:
    """The stages of these names; of a `foreach` or `matrix`, all that it makes.

    Raises UserError for a target that names no stage.
    """
    found: list[Any] = []
    for target in targets:
        fit = [s for s in stages if f"{s.addressing}@".startswith(f"{target}@")]
        if not fit:
            names = [stage.addressing for stage in stages]
            raise UserError(wrong_name(f"there is no stage '{target}'", target, names))
        found += [stage for stage in fit if stage not in found]
    return found
