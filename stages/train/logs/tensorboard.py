"""TensorBoard's events of a training.

Event files carry the time and a process id, so they are no output: they lie under
`data/tensorboard`, which git and DVC ignore. A run that DVC restored has none; its scalars are
then written anew from `history.csv` (`python -m stages.tools.rebuild_tensorboard`).
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.common.yamlfile import yaml_text
from stages.features.schema import Target
from stages.model.model import ModelSpec
from stages.tensors.batch import Batch, take
from stages.train.calibrate import score, to_weights
from stages.train.logs.logger import Values
from stages.training.device.fsdp import whole
from stages.training.params import TrainParams
from stages.training.state import Data, Epoch, Result

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

RUNS = Path("data/tensorboard")
NUM_HISTOGRAMS = 20
NUM_IMAGES = 64
NUM_ROWS = 10
MAX_PR_CURVES = 20
CLOSE_SECONDS = 2.0
NUM_BUCKETS = 50


def run_folder(spec: ModelSpec, params: TrainParams, seed: int) -> Path:
    """The folder of a recipe's events: the same recipe replaces its own, another stands beside."""
    recipe = json.dumps([spec.model_dump(), params.model_dump(), seed], sort_keys=True)
    return RUNS / f"{spec.name}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


class TensorBoard:
    """The events of one training."""

    def __init__(
        self,
        writer: "SummaryWriter",
        spec: ModelSpec,
        params: TrainParams,
        seed: int,
        metric: str,
    ) -> None:
        self._writer = writer
        self._spec = spec
        self._params = params
        self._seed = seed
        self._metric = metric

    def write_start(self, model: nn.Module, data: Data) -> None:
        """The graph and a sample of what goes in."""
        sample, _ = data.train.take(slice(0, NUM_IMAGES))
        with warnings.catch_warnings():
            # Tracing warns of everything that it turns into a constant, and that it is deprecated.
            warnings.simplefilter("ignore")
            rows = to_weights(take(sample, slice(0, 2)), model)
            self._writer.add_graph(model, (rows,), use_strict_trace=False)
        if "image" in sample:
            images = sample["image"]
            low, high = images.min(), images.max()
            scaled = (images - low) / (high - low).clamp(min=1e-6)
            framed = nn.functional.pad(scaled, (1, 1, 1, 1), value=0.5)
            self._writer.add_images("inputs/image", framed)
        if table := _sample_table(sample):
            self._writer.add_text("inputs", table)

    def log(self, step: int, values: Values) -> None:
        """Numbers by name, as every logger takes them."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def write_epoch(self, epoch: Epoch, model: nn.Module | None = None) -> None:
        """Scalars of an epoch; weight histograms of about twenty epochs of a training."""
        number = epoch.epoch
        self.log(number, scalars_of(epoch, self._metric))
        if model is not None:
            for name, weight in due_weights(model, number, self._params.epochs):
                raw = histogram(weight.numpy())
                self._writer.add_histogram_raw(f"weights/{name}", **raw, global_step=number)

    @torch.inference_mode()
    def write_end(self, result: Result, model: nn.Module, data: Data, target: Target) -> None:
        """Precision-recall curves on validation, and the hyper-parameters with their result."""
        if target.classes is not None:
            scores, target_codes = score(model, data.validation)
            probabilities = torch.from_numpy(scores).softmax(dim=1).float()
            codes = torch.from_numpy(target_codes)
            for code, name in enumerate(target.classes[:MAX_PR_CURVES]):
                self._writer.add_pr_curve(
                    f"{target.name}/{yaml_text(name)}", codes == code, probabilities[:, code]
                )
        assert result.best_epoch is not None
        self.write_hyper_parameters(result.best_epoch)

    def write_hyper_parameters(self, kept: Epoch) -> None:
        """The row of the HParams page: what was chosen, and the kept epoch's validation metrics."""
        chosen = chosen_values(self._spec, self._params, self._seed)
        metrics = kept_scalars(kept, self._metric)
        # Without a name torch makes a run of its own below this one for them.
        self._writer.add_hparams(chosen, metrics, run_name=".")


@contextmanager
def open_tensorboard(
    spec: ModelSpec, params: TrainParams, seed: int, metric: str
) -> Iterator[TensorBoard]:
    """Events that replace those of the last training of the same recipe."""
    # A second to import: after the arguments have been checked, and in one process alone.
    from torch.utils.tensorboard.writer import SummaryWriter

    folder = run_folder(spec, params, seed)
    shutil.rmtree(folder, ignore_errors=True)
    writer = SummaryWriter(str(folder))
    try:
        yield TensorBoard(writer, spec, params, seed, metric)
    except BaseException:
        # Stopped in the middle of handing an event over, the writer waits for its own thread for
        # ever: give it the time that a close takes, and leave.
        closing = Thread(target=writer.close, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        raise
    writer.close()


def scalars_of(epoch: Epoch, metric: str) -> dict[str, float]:
    """The values for loggers after an epoch, under the names that it has there."""
    return {
        "loss/train": epoch.train_loss,
        "loss/validation": epoch.validation_loss,
        f"{metric}/validation": epoch.metric,
        "learning_rate": epoch.learning_rate,
        "gradient_norm": epoch.gradient_norm,
        **{f"objective/{name}": value for name, value in epoch.logged.items()},
    }


def kept_scalars(kept: Epoch, metric: str) -> dict[str, float]:
    """The values for loggers at the end: the figures of the kept model on validation."""
    return {
        "kept/validation_loss": kept.validation_loss,
        f"kept/validation_{metric}": kept.metric,
    }


def chosen_values(
    spec: ModelSpec, params: TrainParams, seed: int
) -> dict[str, bool | int | float | str]:
    """The hyper-parameters by their paths."""
    return {
        "seed": seed,
        "model": spec.name,
        **_flat(spec.arguments, "build.model"),
        **_flat(params.model_dump(), "train"),
    }


def histogram(values: np.ndarray) -> dict[str, Any]:
    """The arguments of `add_histogram_raw` for numbers of any shape, in buckets of one width.

    `add_histogram` squares them by BLAS, whose threads cost more than a small step does, and has
    hundreds of buckets, whose checksum TensorBoard takes byte by byte in Python.
    """
    values = values.ravel().astype(np.float64)
    low, high = values.min(), values.max()
    # Given one by one they may also be all the same.
    limits = np.linspace(low, high, NUM_BUCKETS + 1)
    counts, _ = np.histogram(values, bins=limits)
    return {
        "min": low,
        "max": high,
        "num": values.size,
        "sum": values.sum(),
        "sum_squares": np.square(values).sum(),
        # A bucket has its upper limit: an empty one says where the first of the others begins.
        "bucket_limits": limits.tolist(),
        "bucket_counts": [0, *counts.tolist()],
    }


def due_weights(model: nn.Module, number: int, num_epochs: int) -> Iterator[tuple[str, Tensor]]:
    """The weights of which a histogram is due after epoch `number`, on the CPU, by name.

    Where the processes divide them each must ask, to put them together.
    """
    if number % max(1, num_epochs // NUM_HISTOGRAMS) == 0:
        for name, weight in model.named_parameters():
            yield name, whole(weight).cpu()


def _sample_table(batch: Batch) -> str:
    """The first rows of the columns that are no image, as a Markdown table."""
    columns = [kind for kind, tensor in batch.items() if tensor.ndim == 2]
    if not columns:
        return ""
    names = [f"{kind} {i}" for kind in columns for i in range(batch[kind].shape[1])]
    lines = ["|".join(names), "|".join("---" for _ in names)]
    for row in range(min(NUM_ROWS, len(batch[columns[0]]))):
        values = [v for kind in columns for v in batch[kind][row].tolist()]
        lines.append("|".join(f"{value:.4g}" for value in values))
    return "\n".join(f"|{line}|" for line in lines)


def _flat(tree: dict[str, Any], prefix: str) -> dict[str, bool | int | float | str]:
    """Dotted paths to plain values; what TensorBoard can't show becomes text."""
    flat: dict[str, bool | int | float | str] = {}
    for name, value in tree.items():
        path = f"{prefix}.{name}"
        if isinstance(value, dict):
            flat |= _flat(value, path)
        else:
            flat[path] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
