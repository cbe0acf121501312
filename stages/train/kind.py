"""The kind of machine that a training ran on: on the same kind a recipe gives the same bytes.

A file of its own, on which no stage depends: another machine alone reruns nothing.
"""

import os
from pathlib import Path

import torch

from stages.common.files import write_json

# Which of the processor's instructions the libraries may choose between.
VECTOR = ("avx", "amx", "fma", "f16c", "sse4", "neon", "sve", "sme", "vsx")
# What makes them choose otherwise: oneDNN under both of its names, and MKL.
LIMITS = (
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
)


def write_kind(path: Path, device: torch.device) -> None:
    """Write what decides the last bits of a sum here, beside the code and the versions."""
    write_json(path, find_kind(device))


def find_kind(device: torch.device) -> dict[str, str]:
    """The device, the processor's maker, and the instructions that its libraries take.

    `torch` is what torch's own kernels were chosen for (`ATEN_CPU_CAPABILITY` limits it);
    `instructions` are those of the processor that oneDNN and MKL choose from, within what the
    variables ask for that are named here if they are set.
    """
    found = torch.cpu.get_capabilities()
    name = str(found.get("cpu_name", ""))
    there = sorted(key for key, has in found.items() if has is True and key.startswith(VECTOR))
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    kind = {
        "device": on,
        "architecture": str(found.get("architecture", "")),
        "processor": name.split(" ")[0].removesuffix("(R)"),
        "torch": torch.backends.cpu.get_cpu_capability(),
        "instructions": " ".join(there),
    }
    return kind | {variable: os.environ[variable] for variable in LIMITS if variable in os.environ}
