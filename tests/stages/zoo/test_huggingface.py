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
from tests.support.huggingface import CONFIGS, NUM_TOKENS, argument, model_folder

TEXT: dict[str, list[int]] = {"text": [7, NUM_TOKENS + 1]}
IMAGE: dict[str, list[int]] = {"image": [3, 8, 8]}
# Small ones of kinds that the contract does not try: without a pooled output, without places of
# their own, with the pooled output that is not in the file of a masked model, and in windows.
OTHERS: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 8},
    "convnext": {"hidden_sizes": [4, 4, 4, 8], "depths": [1, 1, 1, 1]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "dinov2": {"image_size": 8, "patch_size": 4, "drop_path_rate": 0.5},
    "modernbert": {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3},
    "roberta": {"pad_token_id": 1, "max_position_embeddings": 9},
    "swin": {
        "embed_dim": 4,
        "depths": [1],
        "num_heads": [1],
        "image_size": 8,
        "patch_size": 2,
        "window_size": 2,
    },
}


@pytest.fixture(scope="module", autouse=True)
def _configs() -> None:
    own = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    for kind, config in OTHERS.items():
        text = {**own, "intermediate_size": 32, "vocab_size": NUM_TOKENS}
        CONFIGS.setdefault(
            kind, {**(text if kind[-4:] in ("bert", "erta", "a-v2") else {}), **config}
        )
    CONFIGS["dinov2"] = {**own, **OTHERS["dinov2"]}


def pretrained(folder: Path, inputs: dict[str, list[int]]) -> nn.Module:
    """The model of a folder with its weights, as build makes it."""
    arguments = fill_arguments(ClassSpec(name="huggingface"), folder).arguments
    spec = ModelSpec(name="huggingface", arguments=arguments, inputs=inputs, num_outputs=2)
    model = make_model(spec, 0)
    take_pretrained(model, read_weights(spec, folder))
    return model.eval()


@pytest.mark.parametrize("kind", ["bert", "distilbert", "vit", "resnet", *OTHERS])
def test_the_pooled_output_is_that_of_transformers(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    model_folder(tmp_path, kind)
    reference = AutoModel.from_pretrained(tmp_path).eval()
    is_text = reference.main_input_name == "input_ids"
    model: Any = pretrained(tmp_path, TEXT if is_text else IMAGE)
    torch.manual_seed(1)
    side = 32 if kind == "convnext" else 8
    batch: dict[str, torch.Tensor] = {"image": torch.randn(4, 3, side, side)}
    given = {"pixel_values": batch["image"]}
    if is_text:
        codes = torch.randint(5, NUM_TOKENS + 1, (4, 7))
        codes[1, 4:], codes[2, 1:] = 0, 0
        batch = {"text": codes}
        ids = torch.where(codes == 0, reference.config.pad_token_id or 0, codes - 1)
        given = {"input_ids": ids, "attention_mask": (codes != 0).long()}
    with torch.no_grad():
        expected = reference(**given)
        (found,) = [model._run(**each) for each in model._split(batch[model.kind])]
        pooled = getattr(expected, "pooler_output", None)
        wanted = expected.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    # In training nothing draws but the project's own dropout, and every weight learns.
    rng = share_dropout_rng(model.train(), torch.device("cpu"))
    rng.begin_epoch(0, 0)
    rng.begin_step(0, 4, slice(None))
    before = torch.get_rng_state()
    model(batch).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert [n for n, weight in model.named_parameters() if weight.grad is None] == []


def test_dropout_of_attention_is_drawn_for_the_whole_batch() -> None:
    """Two processes with half of the rows each drop what one with all of them drops."""
    config = argument("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.4)
    spec = ModelSpec(
        name="huggingface", arguments={"config": config, "dropout": 0.0}, inputs=TEXT, num_outputs=2
    )
    model = make_model(spec, 0).train()
    rng = share_dropout_rng(model, torch.device("cpu"))
    codes = torch.randint(1, NUM_TOKENS, (6, 7))

    def run(rows: slice) -> torch.Tensor:
        rng.begin_epoch(3, 1)
        rng.begin_step(2, 6, rows)
        scores: torch.Tensor = model({"text": codes[rows]})
        return scores

    whole = run(slice(None))
    torch.testing.assert_close(torch.cat([run(slice(4)), run(slice(4, 6))]), whole)
    assert not torch.allclose(whole, model.eval()({"text": codes}))


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
        ({"model_type": "gpt2"}, TEXT, "build.pretrained", "gpt2 is no encoder"),
        ({"model_type": "bart"}, TEXT, "build.pretrained", "bart is no encoder"),
        ({"model_type": "mine"}, TEXT, "build.pretrained", "mine is no encoder"),
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
