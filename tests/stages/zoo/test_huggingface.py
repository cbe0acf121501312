"""The model `huggingface` beside transformers itself: the same numbers, and clear refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stages.build.architecture import fill_arguments, read_weights
from stages.common import extras
from stages.common.config import ClassSpec
from stages.common.errors import UserError
from stages.model.dropout import share_dropout_rng
from stages.model.model import ModelSpec, load_model, make_model, save_model, take_pretrained
from stages.zoo.models.huggingface import IMAGES, TEXTS, drop_keys
from tests.support.huggingface import CONFIGS, NUM_TOKENS, argument, model_folder

TEXT: dict[str, list[int]] = {"text": [7, NUM_TOKENS + 1]}
IMAGE: dict[str, list[int]] = {"image": [3, 8, 8]}
SHAPES: dict[str, Any] = {"inputs": TEXT, "num_outputs": 2}


def pretrained(folder: Path, inputs: dict[str, list[int]]) -> nn.Module:
    """The model of a folder with its weights, as build makes it."""
    arguments = fill_arguments(ClassSpec(name="huggingface"), folder).arguments
    spec = ModelSpec(name="huggingface", arguments=arguments, inputs=inputs, num_outputs=2)
    model = make_model(spec, 0)
    take_pretrained(model, read_weights(spec, folder))
    return model.eval()


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


@pytest.mark.parametrize(
    ("config", "inputs", "key", "said"),
    [
        (None, TEXT, "build.pretrained", "no architecture of its own"),
        ({"model_type": "gpt2"}, TEXT, "build.pretrained", "gpt2 is not among"),
        ({"model_type": "bart"}, TEXT, "build.pretrained", "bart is not among"),
        ({"model_type": "mine"}, TEXT, "build.pretrained", "mine is not among"),
        (argument("bert", quantization_config={}), TEXT, "build.pretrained", "are quantized"),
        (
            argument("swin", hidden_dropout_prob=0.1),
            IMAGE,
            "build.pretrained",
            "set hidden_dropout_prob and attention_probs_dropout_prob to 0",
        ),
        (
            argument("bert"),
            {"text": [65, 60]},
            "prepare.columns",
            "65 places, and the model takes 64",
        ),
        (argument("bert"), {"text": [7, 92]}, "prepare.pretrained", "tokenizer of another model"),
        (argument("vit"), {"image": [3, 9, 8]}, "prepare.image", "8 × 8 pixels, not 9 × 8"),
        (
            argument("vit"),
            {"image": [1, 8, 8]},
            "build.pretrained",
            "of 3 channels, and these have 1",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_the_key(
    config: dict[str, Any] | None, inputs: dict[str, list[int]], key: str, said: str
) -> None:
    arguments = {"config": config, "pool": None, "dropout": 0.1}
    spec = ModelSpec(name="huggingface", arguments=arguments, inputs=inputs, num_outputs=2)
    with pytest.raises(UserError, match=said) as caught:
        make_model(spec, 0)
    assert caught.value.problems[0].key == key


def test_a_folder_without_safe_weights_or_with_code_is_refused(tmp_path: Path) -> None:
    model_folder(tmp_path, "bert")
    spec = ClassSpec(name="huggingface")
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    with pytest.raises(UserError, match="starts from a file of weights"):
        fill_arguments(ClassSpec(name="mlp"), tmp_path)
    kept = weights.read_bytes()
    weights.write_bytes(b"PK\x03\x04 no safetensors")
    with pytest.raises(UserError, match="can't be read as safetensors"):
        fill_arguments(spec, tmp_path)
    weights.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model.bin is a pickle, which may run code"):
        fill_arguments(spec, tmp_path)
    weights.write_bytes(kept)
    tree = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**tree, "auto_map": {"AutoModel": "mine.Model"}}), "utf-8")
    with pytest.raises(UserError, match="code of its own, which is not run"):
        fill_arguments(spec, tmp_path)
    config.unlink()
    with pytest.raises(UserError, match=r"^[^:]* has no config\.json\n") as caught:
        fill_arguments(spec, tmp_path)
    assert caught.value.problems[0].key == "build.pretrained"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model.json", '{"name": "huggingface"}', "has no 'arguments' with the 'config'"),
        ("model.safetensors", "\x02\0\0\0\0\0\0\0[]", "can't be read as safetensors"),
        ("model.safetensors.index.json", '{"weight_map": null}', "has no 'weight_map'"),
        ("adapter_config.json", "{}", "weights beside those of another model"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_told(
    file: str, content: str, said: str, tmp_path: Path
) -> None:
    model_folder(tmp_path, "bert")
    (tmp_path / file).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=said) as caught:
        fill_arguments(ClassSpec(name="huggingface"), tmp_path)
    assert caught.value.problems[0].key == "build.pretrained"


def test_no_key_names_code_that_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one of the folder nor one of params.yaml, under whichever name."""
    from transformers import PreTrainedModel

    kernel = "kernels-community/somewhere"
    names = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
    bad = {**dict.fromkeys(names, kernel), "experts_implementation": kernel, "dtype": "float16"}
    asked: list[object] = []
    checked = PreTrainedModel._check_and_adjust_attn_implementation

    def check(self: Any, name: object, *given: Any, **named: Any) -> object:
        asked.append(name)
        return checked(self, name, *given, **named)

    monkeypatch.setattr(PreTrainedModel, "_check_and_adjust_attn_implementation", check)
    model_folder(tmp_path, "bert")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    inner = {"per_layer_config": {"0": {"_attn_implementation": kernel}}}
    (tmp_path / "config.json").write_text(json.dumps({**config, **bad}), encoding="utf-8")
    asked.clear()
    model = pretrained(tmp_path, TEXT)
    assert model.get_parameter("output.weight").dtype == torch.float32
    assert set(asked) == {"eager", "reprise"}
    config = drop_keys({**config, **bad, **inner, "auto_map": {}})
    assert not {*bad, "auto_map"} & set(config)
    assert config["per_layer_config"] == {"0": {}}


@pytest.mark.parametrize(
    "changes", [{"hidden_act": "gulu"}, {"hidden_size": 15}, {"hidden_size": "x"}]
)
def test_an_architecture_that_can_not_be_is_told(changes: dict[str, object]) -> None:
    spec = ModelSpec(
        name="huggingface", arguments={"config": argument("bert", **changes)}, **SHAPES
    )
    with torch.device("meta"), pytest.raises(UserError, match="can't make a bert") as caught:
        make_model(spec, 0)
    assert caught.value.problems[0].key == "build.pretrained"
    assert caught.value.__cause__ is None  # so that `reprise check` says it too


def test_another_version_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"config": argument("bert")}
    spec = ModelSpec(name="huggingface", arguments=arguments, inputs=TEXT, num_outputs=2)
    for found, here in (("4.0", "here is 4.0"), ("", "here is no transformers")):
        monkeypatch.setattr(extras, "_installed", lambda _, found=found: found)
        with pytest.raises(UserError, match=f"needs transformers .*; {here}\n  install  pip"):
            make_model(spec, 0)


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
