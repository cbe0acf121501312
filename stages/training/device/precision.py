"""The precision that a training computes in: `train.precision`.

Weights, gradients, optimizer, losses and validation stay in float32; the model's forward pass is
cast. float16 has a small range: its losses are scaled up before their gradient is taken, by a
factor that follows from the steps that were not finite (Micikevicius et al., ICLR 2018).
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.amp.grad_scaler import GradScaler

from stages.training.params import Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# With a factor of 1 float16 reaches as far as it can: halvings until there, from 2**16.
NUM_HALVINGS = 16


def choose_precision(choice: Precision, device: torch.device) -> str:
    """'fp32', 'bf16' or 'fp16'. `auto`: bf16 on a GPU whose cores compute in it, else fp32."""
    if choice != "auto":
        return choice
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if able else "fp32"


def casting(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context that the forward pass runs in; it can be entered again and again."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def make_scaler(precision: str, device: torch.device) -> GradScaler | None:
    """The factor on losses in float16; None: the others need none."""
    return GradScaler(device.type, init_scale=2.0**NUM_HALVINGS) if precision == "fp16" else None
