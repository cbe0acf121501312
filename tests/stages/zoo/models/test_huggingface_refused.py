"""Folders and configurations that the model `huggingface` refuses, each with its key."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.build.architecture import fill_arguments
from stages.common import extras
from stages.common.config import ClassSpec
from stages.common.errors import UserError
from stages.model.model import ModelSpec, make_model
from stages.zoo.models.huggingface import drop_keys
from tests.support.huggingface import IMAGE, TEXT, argument, model_folder, pretrained

SHAPES: dict[str, Any] = {"inputs": TEXT, "num_outputs": 2}


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
