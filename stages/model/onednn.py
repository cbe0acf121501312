"""Linear layers by oneDNN where a model predicts, in place of the BLAS that torch calls.

On processors for which MKL was not made its matrix products take twice as long and more; see
`benchmarks/RESULTS.md`. The layers and their weights stay what they are, and so does the result
within float32's rounding.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@final
class OneDnnLinear(TorchFunctionMode):
    """A mode, on this thread alone, in which oneDNN computes `torch.nn.functional.linear`.

    For float32 on the CPU, where torch is built with it, without gradients; all else stays.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func`, or oneDNN in place of `linear`, as torch does for each of its functions."""
        if func is functional.linear and not kwargs and _takes(*args[:2]):
            bias = args[2] if len(args) > 2 else None
            return torch.ops.mkldnn._linear_pointwise(*args[:2], bias, "none", [], "")
        return func(*args, **(kwargs or {}))


def _takes(values: Tensor, weight: Tensor) -> bool:
    return (
        bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and not torch.is_grad_enabled()
        and values.dtype == weight.dtype == torch.float32
        and values.device.type == weight.device.type == "cpu"
        and values.numel() > 0
    )
