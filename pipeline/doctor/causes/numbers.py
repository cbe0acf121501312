"""Losses and gradients that are not finite."""

from pipeline.doctor.cause import Cause

TITLE = "The loss is no number any more"
CAUSES = (
    Cause(
        "the loss is not finite",
        (
            "the loss or its gradient was not finite in 5 steps in a row; no such step was applied",
            "the loss is not finite any more in epoch 3; try a tenth of the learning rate, or clip "
            "the gradients (train.clip_norm)",
            "RuntimeError: Function 'LogBackward0' returned nan values in its 0th output.",
        ),
        "`nan` is what 0/0 gives, `inf` what grows beyond float32; every sum with one of them is "
        "one. The message names the first place: a row of the data, a weight, the output of a "
        "layer, the loss or a gradient. In a row it is the data; in a layer of your own it is most "
        "often a `log`, a division or a root of 0; anywhere else the learning rate is too high: "
        "each step overshoots, and the next one from there even more. `reprise doctor` measures "
        "the rate.",
        (
            "a row: mend it at its source, or name what stands for 'no value' in "
            "`prepare.missing`; `reprise expect draft` writes a suite that stops at such a row",
            "a lower rate: a tenth of `train.optimizer.lr`, or what "
            "`python -m stages.tools.lr_range` suggests",
            "shorter steps where the gradient is long: `train.clip_norm: 1.0`",
            "in a layer: `x.clamp_min(1e-6).log()`, `(x + 1e-6).sqrt()`, `log_softmax` in place of "
            "`softmax` and `log`",
            "in fp16 numbers end at 65504: `train.precision: bf16` has the range of float32",
        ),
        (
            r"(loss|gradient) (or its gradient )?(was|is) not finite",
            r"returned nan values in its",
            r"Loss is (nan|inf)",
        ),
        ("rate",),
    ),
    Cause(
        "a value far from all others",
        (
            "the loss of validation is not finite in epoch 1, that of training is",
            "the row with the key 17 of validation has 3.4e+38 in 'size', 5e+30 deviations from "
            "the mean of the train rows",
        ),
        "A number stands for 'not known' (9999999, -999, 3.4e38), and the model takes it for a "
        "number. Among the train rows it moves the mean and the spread of its column, so that all "
        "other values come out nearly equal; among the validation rows the loss overflows.",
        (
            "list it: `prepare.missing: [9999999]`, and it is a gap",
            "an expectation for the column stops at it: `reprise expect draft`",
        ),
        (r"deviations from the mean of the train rows", r"the loss of validation is not finite in"),
    ),
)
