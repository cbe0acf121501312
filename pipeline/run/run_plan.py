"""The plan of a run, and what keeps it from beginning: found before any stage starts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from pipeline.metrics.gates import EVALUATE, read_gates
from pipeline.params.stage_meta import StageMeta, read_metas
from pipeline.plan.plan import StagePlan, make_plan
from pipeline.plan.way import barred, find_bars, find_sent
from stages.common.errors import UserError, wrong_name


@dataclass(frozen=True)
class RunPlan:
    """The stages of a run as planned, upstream first, and the `meta:` of each by its name."""

    plan: list[StagePlan]
    metas: dict[str, StageMeta]


def plan_run(stages: Sequence[str], say: Callable[[str], None], *, force: bool) -> RunPlan:
    """Plan the run of these stages and what they need; none means all.

    Raises UserError for unknown stages, a broken `dvc.yaml`, wrong `meta:` or gates, and a stage
    that does not reach its work pool.
    """
    plan = make_plan(stages)
    metas = read_metas({each.name: each.meta for each in plan})
    if EVALUATE in metas:
        read_gates()  # a wrong one is no reason to fail after hours of training
    if sent := find_sent(plan, force=force):
        _check_way(sent, say)
    return RunPlan(plan, metas)


def _check_way(sent: Sequence[StagePlan], say: Callable[[str], None]) -> None:
    if problems := find_bars(sent, Path.cwd()):
        raise UserError(*problems)
    with get_client(sync_client=True) as client:
        for pool in sorted({str(each.work_pool) for each in sent}):
            try:
                check_pool(client, pool, say)
            except UserError as error:
                of_pool = [each for each in sent if each.work_pool == pool]
                raise UserError(barred(of_pool), *error.problems) from None


def check_pool(client: SyncPrefectClient, pool: str, say: Callable[[str], None]) -> None:
    """Raise UserError where the server has no such work pool."""
    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        names = sorted(each.name for each in client.read_work_pools())
        make = f"  prefect work-pool create {pool} --type process   makes one"
        problem = wrong_name(f"Prefect has no work pool '{pool}'\n{make}", pool, names)
        raise UserError(problem) from None
    if found.is_paused:
        say(f"the work pool '{pool}' is paused: nothing in it starts until it is resumed")
