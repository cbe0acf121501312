"""The model `huggingface` beside transformers itself: the same numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.build.architecture import fill_arguments
from stages.common.config import ClassSpec
from stages.common.errors import UserError
from stages.model.dropout import share_dropout_rng
from stages.model.model import ModelSpec, load_model, make_model, save_model
from stages.zoo.models.huggingface import IMAGES, TEXTS
from tests.support.huggingface import (
    CONFIGS,
    IMAGE,
    NUM_TOKENS,
    TEXT,
    argument,
    model_folder,
    pretrained,
)


def _batch(kind: str, num_rows: int = 4) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    if kind in IMAGES:
        side = 32 if kind.startswith("convnext") else 8
        return {"image": torch.randn(num_rows, 3, side, side)}
    codes = torch.randint(5, NUM_TOKENS + 1, (num_rows, 7))
    codes[1, 4:], codes[2, 1:] = 0, 0
    return {"text": codes}


def _random(kind: str) -> dict[str, Any]:
    """Each share of a type's configuration that says what is dropped, at a third."""
    from transformers import AutoConfig

    made = AutoConfig.for_model(kind, **CONFIGS[kind]).to_dict()
    shares = [name for name, value in made.items() if "drop" in name and value is not None]
    unused = ("classifier_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob")
    # Of swin nothing may be dropped within its windows.
    left_out = unused if kind == "swin" else unused[:1]
    return dict.fromkeys((name for name in shares if name not in left_out), 0.3)


@pytest.mark.parametrize("kind", [*TEXTS, *IMAGES])
def test_the_pooled_output_is_that_of_transformers(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    model_folder(tmp_path, kind, **_random(kind))
    reference = AutoModel.from_pretrained(tmp_path).eval()
    batch, is_text = _batch(kind), kind in TEXTS
    model: Any = pretrained(tmp_path, TEXT if is_text else IMAGE)
    given = {"pixel_values": batch.get("image")}
    if is_text:
        codes = batch["text"]
        ids = torch.where(codes == 0, reference.config.pad_token_id or 0, codes - 1)
        given = {"input_ids": ids, "attention_mask": (codes != 0).long()}
    with torch.no_grad():
        expected = reference(**given)
        (found,) = [model._run(**each) for each in model._split(batch[model.kind])]
        scores, alone = model(batch), model({name: rows[1:2] for name, rows in batch.items()})
    pooled = getattr(expected, "pooler_output", None)
    wanted = expected.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone, scores[1:2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [*TEXTS, *IMAGES])
def test_every_weight_learns_and_what_is_dropped_is_drawn_for_the_whole_batch(kind: str) -> None:
    """Two processes with half of the rows each drop what one with all of them drops."""
    arguments = {"config": argument(kind, **_random(kind))}
    inputs = TEXT if kind in TEXTS else IMAGE
    spec = ModelSpec(name="huggingface", arguments=arguments, inputs=inputs, num_outputs=2)
    model, batch = make_model(spec, 0).train(), _batch(kind)
    rng = share_dropout_rng(model, torch.device("cpu"))

    def run(rows: slice) -> torch.Tensor:
        rng.begin_epoch(3, 1)
        rng.begin_step(2, 4, rows)
        scores: torch.Tensor = model({name: each[rows] for name, each in batch.items()})
        return scores

    before = torch.get_rng_state()
    whole = run(slice(None))
    whole.square().sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert [n for n, weight in model.named_parameters() if weight.grad is None] == []
    torch.testing.assert_close(torch.cat([run(slice(3)), run(slice(3, 4))]), whole)
    assert not torch.allclose(whole, model.eval()(batch))
    with torch.device("meta"):  # as `reprise check` makes it
        make_model(spec, 0)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_has_as_many_places_as_the_model(kind: str) -> None:
    """One more is refused, where transformers itself has no number for the place."""
    arguments = {"config": argument(kind, max_position_embeddings=12)}

    def make(places: int) -> Any:
        inputs = {"text": [places, NUM_TOKENS + 1]}
        spec = ModelSpec(name="huggingface", arguments=arguments, inputs=inputs, num_outputs=2)
        return make_model(spec, 0).eval()

    with pytest.raises(UserError, match="places, and the model takes") as caught:
        make(13)
    most = int(caught.value.problems[0].message.split()[-2])
    codes = torch.full((1, most), 9)
    model = make(most)
    assert model({"text": codes}).isfinite().all()
    with pytest.raises(UserError, match=f"a text has {most + 1} places"):
        make(most + 1)
    if kind != "modernbert":  # its places are turned, and it was trained with so many
        model.lengths = [most + 1]
        with pytest.raises((RuntimeError, IndexError)):
            model({"text": torch.full((1, most + 1), 9)})


def test_a_column_of_text_more_has_the_same_body_and_pooling_is_chosen(tmp_path: Path) -> None:
    model_folder(tmp_path, "bert")
    two = {"numeric": [2], "text": [7, NUM_TOKENS + 1, 3, NUM_TOKENS + 1]}
    model: Any = pretrained(tmp_path, two)
    codes = torch.randint(1, NUM_TOKENS, (2, 10))
    same = torch.cat([codes[:, :3], torch.zeros(2, 4).long(), codes[:, :3]], dim=1)
    first, second = [model._run(**each) for each in model._split(same)]
    torch.testing.assert_close(first, second)
    assert model({"numeric": torch.ones(2, 2), "text": codes}).shape == (2, 2)
    for pool in ("first", "mean"):
        arguments = {"config": argument("bert"), "pool": pool, "dropout": 0.0}
        spec = ModelSpec(name="huggingface", arguments=arguments, inputs=TEXT, num_outputs=2)
        assert not [name for name, _ in make_model(spec, 0).named_parameters() if "pooler" in name]


def test_a_model_trained_here_is_a_folder_for_the_next(tmp_path: Path) -> None:
    model_folder(tmp_path / "bert", "bert")
    model = pretrained(tmp_path / "bert", TEXT)
    arguments = fill_arguments(ClassSpec(name="huggingface"), tmp_path / "bert").arguments
    spec = ModelSpec(name="huggingface", arguments=arguments, inputs=TEXT, num_outputs=2)
    torch.nn.init.ones_(model.get_parameter("output.weight"))
    save_model(tmp_path, spec, model.state_dict(), "model.safetensors")
    again = pretrained(tmp_path, TEXT)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight)
    # Where a model is loaded, nothing is left of the folder that it began with.
    (tmp_path / "bert").rename(tmp_path / "gone")
    assert load_model(tmp_path).training is False


def test_the_body_is_taken_out_of_a_model_with_another_head(tmp_path: Path) -> None:
    """Its pooled output is not in the file, and is not drawn: the first place is taken."""
    from transformers import AutoConfig, AutoModelForMaskedLM

    whole = AutoModelForMaskedLM.from_config(AutoConfig.for_model("bert", **CONFIGS["bert"]))
    whole.save_pretrained(tmp_path)
    model: Any = pretrained(tmp_path, TEXT)
    assert model.pool == "first"
    names = [name for name, _ in model.named_parameters() if name.startswith("body.")]
    assert len(names) == 37
    for name in names:
        source = whole.get_parameter(name.replace("body.", "bert."))
        assert torch.equal(model.get_parameter(name), source), name
