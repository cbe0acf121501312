"""Folders as Hugging Face has them, of models so small that a test makes and trains them.

transformers takes seconds to import, and so is imported where a folder is made.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NUM_TOKENS = 90
# Two of texts and two of images: with dropout in attention and elsewhere, without a pooled output,
# and with batch norms.
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": NUM_TOKENS,
        "max_position_embeddings": 64,
    },
    "distilbert": {
        "dim": 16,
        "n_layers": 1,
        "n_heads": 2,
        "hidden_dim": 32,
        "vocab_size": NUM_TOKENS,
        "max_position_embeddings": 64,
    },
    "vit": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 8,
        "patch_size": 4,
    },
    "resnet": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "layer_type": "basic",
    },
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
