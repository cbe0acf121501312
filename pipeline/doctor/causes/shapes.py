"""Mistakes in code of one's own: shapes, types and devices that don't fit."""

from pipeline.doctor.cause import Cause

TITLE = "The first step already fails"
CAUSES = (
    Cause(
        "shapes that don't fit",
        (
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x64 and 128x10)",
            "RuntimeError: The size of tensor a (10) must match the size of tensor b (64)",
            "RuntimeError: shape '[64, 10]' is invalid for input of size 320",
            "ValueError: Expected input batch_size (32) to match target batch_size (64).",
        ),
        "A layer is given a tensor of another shape than it was made for. The first number is "
        "nearly always the rows of a batch; of two shapes `(64x64 and 128x10)` the inner numbers "
        "must be equal: here the layer before gives 64 numbers a row, and this one wants 128. "
        "`reprise doctor` lists the layers with their shapes up to the one that fails.",
        (
            "make the first argument of the layer that fails the width of what comes in",
            "flatten images before a linear layer: `x.flatten(1)` keeps the rows, `x.flatten()` "
            "loses them",
            "a model for values gives `(rows, 1)`, one for classes `(rows, classes)`: use "
            "`num_outputs` as it is handed to the model",
        ),
        (
            r"shapes cannot be multiplied",
            # A row of a dataset of one's own.
            r"is (\([\d, ]*\)) \w+: expected (?!\1)\(",
            r"size of tensor a \(\d+\) must match",
            r"shape '\[[^]]*\]' is invalid for input of size",
            r"Expected input batch_size \(\d+\) to match target batch_size",
            r"expected input\[[^]]*\] to have \d+ channels",
            r"Sizes of tensors must match except in dimension",
            r"the model '\w+' can't be made .*(Kernel|Output) size",
            r"Calculated padded input size per channel|Output size is too small",
        ),
        ("shapes",),
    ),
    Cause(
        "numbers of the wrong type",
        (
            "RuntimeError: expected scalar type Float but found Double",
            "RuntimeError: mat1 and mat2 must have the same dtype, but got Double and Float",
            "RuntimeError: expected scalar type Long but found Float",
            "RuntimeError: result type Float can't be cast to the desired output type Long",
        ),
        "Weights are float32. NumPy computes in float64, which torch calls Double, and a tensor "
        "that was made of it stays so. Class labels are the other case: a loss of classes wants "
        "whole numbers (int64, Long).",
        (
            "make inputs float32 where they become tensors: `torch.as_tensor(x).float()`",
            "make class labels int64: `target.long()`",
            "in a model, don't mix in tensors from NumPy; make new ones with "
            "`torch.zeros(n, dtype=x.dtype, device=x.device)`",
        ),
        (
            r"expected scalar type \w+ but found \w+",
            r"is (\([\d, ]*\)) (\w+): expected \1 (?!\2\b)",
            r"must have the same dtype, but got",
            r"expected m1 and m2 to have the same dtype",
            r"can't be cast to the desired output type",
            r"Expected floating point type for target with class probabilities",
            r"not implemented for '(Long|Int|Half|Bool|Double)'",
            r"argument #\d+ 'indices' to have one of the following scalar types",
        ),
        ("shapes",),
    ),
    Cause(
        "tensors on different devices",
        (
            "RuntimeError: Expected all tensors to be on the same device, but found at least two "
            "devices, cuda:0 and cpu!",
        ),
        "A GPU has a memory of its own. A tensor that a model makes in `forward` lies in the "
        "memory of the CPU unless it is told otherwise.",
        (
            "make it where the input is: `torch.arange(n, device=x.device)`",
            "a tensor that belongs to the model and is no weight: "
            "`self.register_buffer(name, tensor)`, so that it moves with it",
        ),
        (r"Expected all tensors to be on the same device", r"Input type \(\S+\) and weight type"),
        recorded=True,
    ),
    Cause(
        "a label out of range",
        (
            "IndexError: Target 12 is out of bounds.",
            "Assertion `t >= 0 && t < n_classes` failed.",
            "RuntimeError: CUDA error: device-side assert triggered",
        ),
        "A row's class is not one of those that the model can give: with ten outputs the labels "
        "are 0 to 9. On a CPU the message names the label. A GPU works behind the program, so that "
        "its error comes later, at a line that has nothing to do with it, and the process can't "
        "use the GPU any more. `reprise doctor` looks at every row on the CPU and names the first "
        "that is out of range. The same message comes of a category or a word beyond the end of "
        "an `nn.Embedding`.",
        (
            "count classes from 0 in the dataset of your own (`stages/zoo/datasets`)",
            "leave classes to prepare: `prepare.target` makes codes of any labels, and its "
            "schema has them all",
            "an `nn.Embedding` needs one row more than the largest code: code 0 is 'none of these'",
        ),
        (
            r"Target -?\d+ is out of bounds",
            r"t >= 0 && t < n_classes|cur_target >= 0",
            r"device-side assert triggered",
            r"index out of range in self",
            r"class values must be smaller than num_classes",
        ),
        ("labels",),
    ),
    Cause(
        "a mistake in params.yaml or in the data",
        (
            "unknown key 'lrr'",
            "  edit     params.yaml:57  train.optimizer.lrr: 0.003",
        ),
        "A stage has read its parameters or its table, and stopped before any work. The message "
        "names the file, the line, the key and what is allowed there.",
        ("edit that line, then `reprise check`, which looks at the whole file in a second",),
        (r"^  edit     (?!stages/)\S+:\d+", r"unknown key '", r"did you mean '"),
        is_general=True,
    ),
    Cause(
        "a mistake in code of your own",
        (
            "the metric 'cost': NameError: name 'scores' is not defined",
            "  edit     stages/zoo/metrics.py:12  return float(scores.mean())",
        ),
        "A file of `stages/zoo` has raised an error that says nothing of shapes, memory or "
        "numbers. The message names its file and its line, and shows the line.",
        (
            "edit that line, then `dvc repro`: what is above the stage comes from the cache",
            "`docs/own_code.md` says what each kind of file must have, and how it is called",
        ),
        (r"^  edit     stages/\S+:\d+", r"\b(NameError|UnboundLocalError): "),
        is_general=True,
    ),
)
