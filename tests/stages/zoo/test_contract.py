"""One contract for every model of the zoo, on each choice of the kinds that it takes.

The models are found by listing: one that is new is held to it without an edit here.
"""

import copy
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from stages.build.summary import check_gradients
from stages.common.errors import UserError
from stages.infer.export.onnx_graph import export
from stages.infer.export.torch_program import export_program
from stages.infer.export.verify import verify, verify_program
from stages.model.attribution import attribute
from stages.model.dropout import Dropout
from stages.model.ensemble import Ensemble
from stages.model.model import load_model, make_model, save_model
from stages.model.predictor import Predictor
from stages.tensors.batch import take
from stages.training.step.loss_of_scores import compute_loss, prepare_scores
from tests.support.zoo import (
    CHOICES,
    CLASSES,
    KEY,
    MODELS,
    READS,
    Kinds,
    Rows,
    largest,
    model_for,
    rows_of,
    spec_for,
    takes,
)

# Each kind by itself, and as many as it takes.
TAKEN = [
    (name, kinds)
    for name in MODELS
    for kinds in takes(name)
    if len(kinds) == 1 or kinds == largest(name)
]
REFUSED = [(name, kinds) for name in MODELS for kinds in CHOICES if kinds not in takes(name)]
TASKS = ("classification", "regression")
# An export takes seconds, and these end in a plain linear layer whatever they predict.
SAME_FOR_VALUES = (
    *("cnn", "mixed", "mlp", "ngrams", "resnet", "transformer"),
    *(name for name in MODELS if name.startswith("huggingface")),
)
EXPORTED = [
    (name, task)
    for name in MODELS
    for task in TASKS
    if task == "classification" or name not in SAME_FOR_VALUES
]
taken = pytest.mark.parametrize(("name", "kinds"), TAKEN, ids=str)
each_model = pytest.mark.parametrize("name", MODELS)
each_task = pytest.mark.parametrize("task", TASKS)


def loss_of(scores: Tensor, rows: Rows) -> Tensor:
    """What a training makes less."""
    classes = rows.schema.target.task == "classification"
    loss_fn = nn.CrossEntropyLoss() if classes else nn.MSELoss()
    return compute_loss(loss_fn, prepare_scores(scores, rows.target), rows.target, None)


def without_dropout(model: nn.Module) -> nn.Module:
    """The same model, which draws nothing."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    return model


@each_model
def test_it_takes_some_kind_of_column(name: str) -> None:
    assert takes(name), "a model is made with its own arguments for at least one kind of column"


@each_task
@taken
def test_the_schema_says_the_shape_of_the_scores(name: str, kinds: Kinds, task: str) -> None:
    rows = rows_of(kinds, task)
    model = model_for(name, rows).eval()
    for num_rows in (1, 3, rows.table.height):
        scores = model(take(rows.batch, slice(num_rows)))
        assert scores.shape == (num_rows, rows.schema.num_outputs())
        assert scores.dtype == torch.float32
        assert scores.isfinite().all()


@taken
def test_every_parameter_gets_a_gradient(name: str, kinds: Kinds) -> None:
    rows = rows_of(kinds)
    check_gradients(make_model(spec_for(name, rows), seed=0), spec_for(name, rows), seed=0)
    model = model_for(name, rows).train()
    loss_of(model(rows.batch), rows).backward()  # type: ignore[no-untyped-call]
    for parameter, weight in model.named_parameters():
        assert weight.grad is not None, parameter
        assert weight.grad.isfinite().all(), parameter


@taken
def test_the_seed_alone_decides_the_weights(name: str, kinds: Kinds) -> None:
    spec = spec_for(name, rows_of(kinds))
    made = []
    for drawn_before in (5, 6):
        torch.manual_seed(drawn_before)
        made.append(make_model(spec, seed=3).state_dict())
        # Whoever draws afterwards draws what they would have drawn without it.
        found = torch.rand(3)
        torch.manual_seed(drawn_before)
        assert torch.equal(found, torch.rand(3))
    first, again = made
    assert list(first) == list(again)
    assert all(torch.equal(first[key], again[key]) for key in first)


@taken
def test_a_saved_model_is_loaded_to_the_bit(name: str, kinds: Kinds, tmp_path: Path) -> None:
    rows = rows_of(kinds)
    model = model_for(name, rows).eval()
    save_model(tmp_path, spec_for(name, rows), model.state_dict(), "model.safetensors")
    loaded = load_model(tmp_path)
    assert not loaded.training
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert torch.equal(loaded(rows.batch), model(rows.batch))


@taken
def test_a_row_is_scored_as_if_it_were_alone(name: str, kinds: Kinds) -> None:
    """In training too, dropout apart: no layer knows the other rows of its batch."""
    rows = rows_of(kinds)
    model = without_dropout(model_for(name, rows))
    for mode in (True, False):
        whole = model.train(mode)(rows.batch)
        alone = torch.cat(
            [model(take(rows.batch, slice(row, row + 1))) for row in range(len(whole))]
        )
        torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-4)


@taken
def test_it_counts_nothing_and_drops_by_the_rules_of_the_training(name: str, kinds: Kinds) -> None:
    model = model_for(name, rows_of(kinds))
    before = copy.deepcopy(dict(model.named_buffers()))
    model.train()(rows_of(kinds).batch)
    assert all(torch.equal(before[key], each) for key, each in model.named_buffers())
    for place, module in model.named_modules():
        assert not isinstance(module, nn.modules.batchnorm._NormBase), f"{place}: use group norm"
        theirs = isinstance(module, nn.modules.dropout._DropoutNd)
        assert not theirs, f"{place}: use stages.model.dropout.Dropout"


@each_task
@each_model
def test_it_learns_one_batch_by_heart(name: str, task: str) -> None:
    # Fewer rows than numbers in a row: a weighted sum of them can tell the rows apart.
    rows = rows_of(largest(name), task, num_rows=4)
    model = without_dropout(make_model(spec_for(name, rows), seed=0).train())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, fused=True)
    start = loss_of(model(rows.batch), rows).item()
    for _ in range(300):
        optimizer.zero_grad()
        loss = loss_of(model(rows.batch), rows)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if loss.item() < 0.02 * start:
            break
    assert loss.item() < 0.02 * start


@pytest.mark.parametrize(("name", "task"), EXPORTED)
def test_what_is_exported_is_the_model(name: str, task: str) -> None:
    rows = rows_of(largest(name), task)
    predictor = Predictor(model_for(name, rows).eval(), rows.schema, rows.statistics)
    bundle = export(predictor, rows.arrays)
    # In units of the largest prediction, which random weights may make large.
    numbers = predictor.predict(rows.table).select(pl.selectors.float()).to_numpy()
    limit = 1e-5 * max(1.0, float(np.abs(numbers).max()))
    assert verify(bundle, predictor, rows.table, KEY) < limit
    assert export(predictor, rows.arrays) == bundle
    assert verify_program(export_program(predictor), predictor, rows.table, KEY) < limit


@taken
def test_every_column_is_explained_and_they_add_up(name: str, kinds: Kinds) -> None:
    """In an ensemble too, whose members each make numbers of codes."""
    rows = rows_of(kinds)
    # At the size of weights that a training gives, members unlike each other.
    models = [make_model(spec_for(name, rows), seed).eval() for seed in (0, 1)]
    generator = torch.Generator().manual_seed(1)
    for model in models:
        for weight in model.parameters():
            weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    predictor = Predictor(Ensemble(models, len(CLASSES)).eval(), rows.schema, rows.statistics)
    arrays = {kind: array[:4] for kind, array in rows.arrays.items()}
    found = attribute(predictor, arrays, np.arange(4) % len(CLASSES))
    assert found.left_out == []
    for feature in rows.schema.features:
        # An image is explained by its areas.
        assert feature.name in found.columns or f"{feature.name} centre" in found.columns
    assert np.abs(found.values).max(axis=0).min() > 0
    # Of rows that hardly move a kink of a layer is much.
    assert found.errors.sum() < 0.05 * np.abs(found.values).sum()


@taken
def test_a_step_under_bf16_autocast_is_near_that_of_float32(name: str, kinds: Kinds) -> None:
    rows = rows_of(kinds)
    losses, models = [], []
    for enabled in (False, True):
        model = without_dropout(model_for(name, rows)).train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            scores = model(rows.batch)
        loss = loss_of(scores.float(), rows)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.optim.SGD(model.parameters(), lr=0.01).step()
        losses.append(loss.item())
        models.append(dict(model.named_parameters()))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    start = dict(model_for(name, rows).named_parameters())
    errors, steps = [], []
    for key, weight in models[1].items():
        moved, expected = weight - start[key], models[0][key] - start[key]
        assert weight.dtype == torch.float32
        errors.append((moved - expected).norm())
        steps.append(expected.norm())
        # The gradient of a single weight may be a small difference of large numbers.
        assert errors[-1] <= 0.25 * steps[-1] + 1e-6, key
    assert torch.stack(errors).norm() <= 0.1 * torch.stack(steps).norm() + 1e-6


# The first compilation of a process takes half a minute of a core.
@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@each_model
def test_a_compiled_step_is_that_of_the_model(name: str) -> None:
    rows = rows_of(largest(name))
    weights = []
    for compiled in (False, True):
        model = without_dropout(model_for(name, rows)).train()
        scores = (torch.compile(model, fullgraph=True) if compiled else model)(rows.batch)
        loss_of(scores, rows).backward()  # type: ignore[no-untyped-call]
        torch.optim.SGD(model.parameters(), lr=0.01).step()
        weights.append(model.state_dict())
    for key, weight in weights[0].items():
        torch.testing.assert_close(weights[1][key], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "kinds"), REFUSED, ids=str)
def test_kinds_that_it_cannot_take_are_refused_by_name(name: str, kinds: Kinds) -> None:
    with pytest.raises(UserError) as caught:
        make_model(spec_for(name, rows_of(kinds)), seed=0)
    (problem,) = caught.value.problems
    if problem.key == "build.model.line":
        assert (problem.value, problem.allowed) == ("true", ("false",))
        assert set(kinds) == {"text"}
        return
    assert problem.key == "build.model.name"
    file, _, inner = name.partition(" ")
    assert problem.value == file
    assert {file, inner if name in READS else ""} <= {"", *problem.message.split()}
    for kind in kinds:
        assert kind in problem.message
    # Models that take them are told.
    assert problem.allowed
    assert all(kinds in takes(other) for other in problem.allowed)
