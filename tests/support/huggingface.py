"""Folders as Hugging Face has them, of models so small that a test makes and trains them.

transformers takes seconds to import, and so is imported where a folder is made.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stages.build.architecture import fill_arguments, read_weights
from stages.common.config import ClassSpec
from stages.model.model import ModelSpec, make_model, take_pretrained

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NUM_TOKENS = 90
TEXT: dict[str, list[int]] = {"text": [7, NUM_TOKENS + 1]}
IMAGE: dict[str, list[int]] = {"image": [3, 8, 8]}
_LAYERS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_TEXT = {"vocab_size": NUM_TOKENS, "max_position_embeddings": 64}
_BERT = {**_LAYERS, **_TEXT, "intermediate_size": 32}
_VIT = {**_LAYERS, "intermediate_size": 32, "image_size": 8, "patch_size": 4}
_CONVNEXT = {"hidden_sizes": [4, 4, 4, 8], "depths": [1, 1, 1, 1]}
# One of each type that the model `huggingface` takes.
CONFIGS: dict[str, dict[str, Any]] = {
    "albert": {**_BERT, "embedding_size": 8},
    "bert": {**_BERT, "num_hidden_layers": 2},
    "camembert": _BERT,
    "convbert": {**_BERT, "embedding_size": 8},
    "convnext": _CONVNEXT,
    "convnextv2": _CONVNEXT,
    "deberta-v2": {**_BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "deit": _VIT,
    "dinov2": {**_LAYERS, "image_size": 8, "patch_size": 4},
    "distilbert": {**_TEXT, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32},
    "electra": {**_BERT, "embedding_size": 8},
    "modernbert": {**_BERT, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3},
    "mpnet": _BERT,
    "resnet": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "layer_type": "basic",
    },
    "roberta": _BERT,
    "swin": {
        "embed_dim": 4,
        "depths": [1, 1],
        "num_heads": [1, 1],
        "image_size": 8,
        "patch_size": 2,
        "window_size": 2,
    },
    "vit": _VIT,
    "xlm-roberta": _BERT,
}


def argument(kind: str, **changes: object) -> dict[str, Any]:
    """Return the argument `config` of the model `huggingface`."""
    return {"model_type": kind, **CONFIGS[kind], **changes}


def model_folder(folder: Path, kind: str, texts: Iterable[str] = (), **changes: object) -> Path:
    """Write a folder with a model of random weights; with `texts` a tokenizer of their words."""
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(7)
    body = AutoModel.from_config(AutoConfig.for_model(kind, **CONFIGS[kind], **changes)).eval()
    for module in body.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    body.save_pretrained(folder)
    if body.main_input_name == "pixel_values":
        said = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3]}
        (folder / "preprocessor_config.json").write_text(json.dumps(said), encoding="utf-8")
    if texts:
        _tokenizer(texts).save_pretrained(folder)
    return folder


def _tokenizer(texts: Iterable[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=NUM_TOKENS, special_tokens=SPECIAL, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=made, **dict(zip(names, SPECIAL, strict=True)))


def pretrained(folder: Path, inputs: dict[str, list[int]]) -> nn.Module:
    """The model of a folder with its weights, as build makes it."""
    arguments = fill_arguments(ClassSpec(name="huggingface"), folder).arguments
    spec = ModelSpec(name="huggingface", arguments=arguments, inputs=inputs, num_outputs=2)
    model = make_model(spec, 0)
    take_pretrained(model, read_weights(spec, folder))
    return model.eval()
