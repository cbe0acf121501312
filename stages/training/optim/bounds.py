"""Bounds of the numbers that torch's losses, optimizers and schedules take, by their arguments.

Torch checks some of them when it makes the object, some in the first step, and some never: a
`T_max` of -5 trains without a word. Here they are part of the types, for the stages, `reprise
check` and editors. What depends on two arguments at once is left to torch.
"""

from typing import Any

from pydantic import Field

from stages.common.config import MAX_COUNT, MAX_NUMBER

_SHARE = Field(ge=0, le=1)
_BELOW_ONE = Field(ge=0, lt=1)
_POSITIVE = Field(gt=0, le=MAX_NUMBER)
_NOT_NEGATIVE = Field(ge=0, le=MAX_NUMBER)
_COUNT = Field(ge=1, le=MAX_COUNT)
_COUNT_OR_NONE = Field(ge=0, le=MAX_COUNT)

BOUNDS: dict[str, dict[str, Any]] = {
    "loss": {
        "beta": _NOT_NEGATIVE,
        "delta": _POSITIVE,
        "label_smoothing": _BELOW_ONE,
        "margin": _POSITIVE,
        "p": Field(ge=1, le=2),
    },
    "optimizer": {
        "alpha": _BELOW_ONE,
        "beta2_decay": Field(ge=-MAX_NUMBER, le=0),
        "betas": _BELOW_ONE,
        "d": Field(ge=1, le=MAX_NUMBER),
        "dampening": _SHARE,
        "eps": _SHARE,
        "etas": _POSITIVE,
        "history_size": _COUNT,
        "initial_accumulator_value": _NOT_NEGATIVE,
        "lambd": _SHARE,
        "lr": _POSITIVE,
        "lr_decay": _NOT_NEGATIVE,
        "max_eval": _COUNT,
        "max_iter": _COUNT,
        "momentum": _BELOW_ONE,
        "momentum_decay": _NOT_NEGATIVE,
        "rho": _SHARE,
        "step_sizes": _POSITIVE,
        "t0": _NOT_NEGATIVE,
        "tolerance_change": _NOT_NEGATIVE,
        "tolerance_grad": _NOT_NEGATIVE,
        "weight_decay": Field(ge=0, le=1000),
    },
    "schedule": {
        "T_0": _COUNT,
        "T_max": _COUNT,
        "T_mult": _COUNT,
        "base_lr": _NOT_NEGATIVE,
        "base_momentum": _BELOW_ONE,
        "cooldown": _COUNT_OR_NONE,
        "div_factor": _POSITIVE,
        "end_factor": _SHARE,
        "eps": _SHARE,
        "eta_min": _NOT_NEGATIVE,
        "factor": Field(gt=0, le=1),
        "final_div_factor": _POSITIVE,
        "gamma": Field(gt=0, le=100),
        "max_lr": _POSITIVE,
        "max_momentum": _BELOW_ONE,
        "milestones": _COUNT,
        "min_lr": _NOT_NEGATIVE,
        "patience": _COUNT_OR_NONE,
        "pct_start": _SHARE,
        "power": _POSITIVE,
        "start_factor": Field(gt=0, le=1),
        "step_size": _COUNT,
        "step_size_down": _COUNT,
        "step_size_up": _COUNT,
        "threshold": _NOT_NEGATIVE,
        "total_iters": _COUNT,
        "total_steps": _COUNT,
    },
}
