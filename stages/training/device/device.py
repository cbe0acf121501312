"""The device of a process: `REPRISE_DEVICE`, else a GPU when there is one."""

import os

import torch

from stages.common.errors import UserError


def device_kind() -> str:
    """'cpu', 'cuda', …: what the processes of this machine train on."""
    return _device_name().partition(":")[0]


def _device_name() -> str:
    return os.environ.get("REPRISE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


def choose_device() -> torch.device:
    """The device of this process. Raises UserError when `REPRISE_DEVICE` is none."""
    name = _device_name()
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        # Read back: the device 'meta' takes tensors, but holds no numbers.
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"REPRISE_DEVICE is '{name}', which can't be used: {reason}") from None
    return device
