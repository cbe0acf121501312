"""A model that others have trained, from a folder of Hugging Face's: texts or images.

    build: {model: {name: huggingface}, pretrained: data/raw/bert}
    prepare: {…, pretrained: data/raw/bert}

The folder has `config.json`, `model.safetensors` and, of texts, `tokenizer.json`, of images
`preprocessor_config.json`. Nothing is downloaded, and no code of the folder is run. `model.json`
takes the architecture along, so that after build nothing needs the folder.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from stages.common.config import Config
from stages.common.errors import Problem, UserError, shorten, wrong_name
from stages.model.dropout import Dropout
from stages.model.layers import (
    ByColumn,
    Flatten,
    FrozenNorm,
    attend,
    register_constant,
    wrong_inputs,
)

LIBRARIES = {"transformers": "5.24.0"}
PRETRAINED, CONFIG = "build.pretrained", "build.model.config"
# Those that the tests try: the same numbers as in transformers, no randomness but the project's,
# a gradient for every weight, and no row that depends on the others.
TEXTS = (
    *("albert", "bert", "camembert", "convbert", "deberta-v2", "distilbert", "electra"),
    *("modernbert", "mpnet", "roberta", "xlm-roberta"),
)
IMAGES = ("convnext", "convnextv2", "deit", "dinov2", "resnet", "swin", "vit")
# Keys with one of these are dropped wherever an architecture comes from: transformers would fetch
# and run code that is named there, read another file, or compute in other numbers.
DROPPED = (
    *("attn_implementation", "experts_implementation", "auto_map", "dtype", "use_kernels"),
    *("kernel_config", "transformers_weights"),
)


class Arguments(Config):
    """`config` is the architecture as `config.json` has it; null: that of `build.pretrained`.

    `pool` is what becomes of the outputs: the model's `own` pooled output, its `first` place or the
    `mean` of all; null: its own where no weights of that would have to be drawn. `dropout` is the
    share of these numbers set to zero before the head.
    """

    config: dict[str, Any] | None = None
    pool: Literal["own", "first", "mean"] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @field_validator("config")
    @classmethod
    def _drop(cls, config: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if config is None else drop_keys(config)


class Model(nn.Module):
    """The body, for all columns of text, and a linear head on its pooled output and the others."""

    def __init__(
        self, arguments: Arguments, inputs: dict[str, list[int]], num_outputs: int
    ) -> None:
        super().__init__()
        if arguments.config is None:
            message = "huggingface has no architecture of its own: name the folder of a model"
            raise UserError(Problem(message, PRETRAINED, "null", ("data/raw/bert",)))
        self.body = make_body(arguments.config)
        config = self.body.config
        self.kind = "text" if config.model_type in TEXTS else "image"
        if self.kind not in inputs or (self.kind == "text" and "image" in inputs):
            raise wrong_inputs("huggingface", f"as {config.model_type} takes {self.kind}s", inputs)
        self.lengths = inputs["text"][::2] if self.kind == "text" else [1]
        (check_texts if self.kind == "text" else check_images)(self.body, inputs[self.kind])
        self.pad = getattr(config, "pad_token_id", None) or 0
        pooler = getattr(self.body, "pooler", None)
        has_weights = pooler is not None and next(pooler.parameters(), None) is not None
        self.pool = arguments.pool or ("first" if has_weights else "own")
        if self.pool != "own":
            self.body.pooler = None
        others = {kind: shape for kind, shape in inputs.items() if kind != self.kind}
        self.flatten = Flatten(others) if others else None
        self.by_column = ByColumn()
        self.dropout = Dropout(arguments.dropout)
        # Of a network of several widths, that of its last part.
        width = getattr(config, "hidden_size", None) or config.hidden_sizes[-1]
        width = width * len(self.lengths) + (self.flatten.width if self.flatten else 0)
        self.output = nn.Linear(width, num_outputs)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs)."""
        parts = [
            self.by_column(self._run(**given), self.kind, [column])
            for column, given in enumerate(self._split(batch[self.kind]))
        ]
        parts += [] if self.flatten is None else [self.flatten(batch)]
        scores: Tensor = self.output(self.dropout(torch.cat(parts, dim=1)))
        return scores

    def _split(self, values: Tensor) -> Iterator[dict[str, Tensor]]:
        """Yield what the body is given: the pixels of images; of each text ids and their places."""
        if self.kind == "image":
            yield {"pixel_values": values}
            return
        for codes in torch.split(values, self.lengths, dim=1):
            there = codes != 0
            # Of a gap the first place is looked at: attention to nothing is not a number.
            there = torch.cat([torch.ones_like(there[:, :1]), there[:, 1:]], dim=1)
            ids = torch.where(codes == 0, self.pad, codes - 1)
            yield {"input_ids": ids, "attention_mask": there.long()}

    def _run(self, **given: Tensor) -> Tensor:
        """The pooled output of the body (rows, width)."""
        found = self.body(**given, return_dict=True)
        hidden: Tensor = found.last_hidden_state
        pooled: Tensor | None = getattr(found, "pooler_output", None)
        if self.pool == "own" and pooled is not None:
            return pooled.flatten(1)
        if self.pool != "mean":
            return hidden[:, 0]
        if self.kind == "image":
            return hidden.flatten(2).mean(dim=2) if hidden.ndim == 4 else hidden.mean(dim=1)
        there = given["attention_mask"][:, :, None].to(hidden.dtype)
        return (hidden * there).sum(dim=1) / there.sum(dim=1)


def drop_keys(config: dict[str, Any]) -> dict[str, Any]:
    """`config` without the keys that are DROPPED, those of its inner objects too."""
    kept = {key: v for key, v in config.items() if not any(part in str(key) for part in DROPPED)}
    return {key: drop_keys(v) if isinstance(v, dict) else v for key, v in kept.items()}


def make_config(described: dict[str, Any]) -> Any:
    """The configuration of transformers, in which no layer is left out at random.

    Raises UserError for a model that is not among those tried, and for values that can't be.
    """
    from transformers import AutoConfig
    from transformers.utils import logging

    # What it would say of each model of which only the body is taken.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    described = drop_keys(described)
    kind = described.pop("model_type", None)
    if kind not in (*TEXTS, *IMAGES):
        known = f"of texts {', '.join(TEXTS)}; of images {', '.join(IMAGES)}"
        message = f"{kind} is not among the models of transformers that are tried here: {known}"
        raise UserError(Problem(message, PRETRAINED, str(kind)))
    if described.pop("quantization_config", None) is not None:
        message = "the weights are quantized, and such are not trained: take those that are not"
        raise UserError(Problem(message, PRETRAINED, str(kind)))
    with _named(kind):
        config = AutoConfig.for_model(kind, **described)
    shares = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    if kind == "swin" and any(getattr(config, name) for name in shares):
        message = "of swin, whose windows stand in the place of rows, nothing is dropped within"
        raise UserError(Problem(f"{message}: set {' and '.join(shares)} to 0", PRETRAINED, kind))
    # What leaves out whole layers at random does so for all processes in another way.
    for name in ("drop_path_rate", "layerdrop"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def check_said(config: dict[str, Any]) -> None:
    """Raise UserError for a key of `build.model.config` that the type of model does not have."""
    made = make_config(config)
    known = [*(field.name for field in fields(made)), *made.attribute_map]
    wrong = [key for key in drop_keys(config) if key not in (*known, "model_type")]
    if wrong:
        message = f"{made.model_type} has no '{wrong[0]}'"
        raise UserError(wrong_name(message, wrong[0], known, f"{CONFIG}.{wrong[0]}"))


@contextmanager
def _named(kind: str) -> Iterator[None]:
    """Turn what transformers raises of an architecture into a UserError with the keys."""
    try:
        yield
    except Exception as error:
        reason = shorten(" ".join(f"{type(error).__name__}: {error}".split()))
        message = (
            f"transformers can't make a {kind} of this architecture, the config.json of "
            f"{PRETRAINED} or {CONFIG}: {reason}"
        )
        raise UserError(Problem(message, PRETRAINED, kind)) from None


def make_body(described: dict[str, Any]) -> Any:
    """The model of transformers that is described, its weights drawn, without its randomness.

    Its dropout becomes the project's, which does not depend on the number of processes. Raises
    UserError as `make_config` does.
    """
    from transformers import AutoModel

    config = make_config(described)
    with _named(config.model_type):
        body = AutoModel.from_config(config, dtype=torch.float32, attn_implementation="eager")
    _use_own_attention(body)
    for module in list(body.modules()):
        if getattr(module, "mask_token", None) is not None:
            module.mask_token = None  # of pretraining alone: it would never get a gradient
        for name, buffer in module.named_buffers(recurse=False):
            # Numbers of places and the like, which no step moves.
            kept = name not in module._non_persistent_buffers_set
            register_constant(module, name, buffer, persistent=kept)
        for name, inner in module.named_children():
            if isinstance(inner, nn.Dropout):
                # That of deberta's places is of all rows at once, and so of no share of them.
                setattr(module, name, Dropout(0.0 if name == "pos_dropout" else inner.p))
            elif isinstance(inner, nn.BatchNorm2d):
                setattr(module, name, FrozenNorm(inner))
    return body


def _use_own_attention(body: Any) -> None:
    """Let attention draw its dropout as every layer here does."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    attentions = [module for module in body.modules() if hasattr(module, "is_causal")]
    if not attentions:
        return
    ALL_ATTENTION_FUNCTIONS.register("reprise", attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register("reprise", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    for module in attentions:
        module.drawn = Dropout(0.0)
    body.set_attn_implementation("reprise")


def check_texts(body: Any, shape: list[int]) -> None:
    """Raise UserError for texts of more tokens or places than the model has."""
    config = body.config
    places, codes = max(shape[::2]), max(shape[1::2])
    if codes - 1 > config.vocab_size:
        message = (
            f"the texts have up to {codes - 1} different tokens, and the model knows "
            f"{config.vocab_size}: they are cut by the tokenizer of another model"
        )
        raise UserError(Problem(message, "prepare.pretrained"))
    most = getattr(config, "max_position_embeddings", None)
    padding = getattr(getattr(body, "embeddings", None), "padding_idx", None)
    if most is not None and padding is not None:
        most -= padding + 1  # places are counted from behind it on
    if most is not None and 0 < most < places:
        message = f"a text has {places} places, and the model takes {most} tokens"
        said = f"{{kind: text, places: {most}}}"
        raise UserError(Problem(message, "prepare.columns", None, (said,)))


def check_images(body: Any, shape: list[int]) -> None:
    """Raise UserError for images of other channels, or of a size that the model does not take."""
    config = body.config
    channels, *sides = shape
    if channels != config.num_channels:
        message = (
            f"the model takes images of {config.num_channels} channels, and these have {channels}"
        )
        raise UserError(Problem(message, PRETRAINED))
    size = getattr(config, "image_size", None)
    wanted = [size, size] if isinstance(size, int) else size
    if wanted is not None and not hasattr(config, "hidden_sizes") and list(wanted) != sides:
        sizes = [f"{height} × {width}" for height, width in (wanted, sides)]
        message = f"the model takes images of {sizes[0]} pixels, not {sizes[1]}"
        said = f"{{height: {wanted[0]}, width: {wanted[1]}}}"
        raise UserError(Problem(message, "prepare.image", None, (said,)))


def read_weights(folder: Path, arguments: Arguments) -> dict[str, Tensor]:
    """The weights in a folder as transformers loads them, by the names that `Model` gives them."""
    from transformers import AutoModel

    config = make_config(arguments.config or {})
    with torch.random.fork_rng(devices=[]):
        body, report = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation="eager",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    left = set(report["missing_keys"])
    tensors = {name: t for name, t in body.state_dict().items() if name not in left}
    counted = "num_batches_tracked"
    return {f"body.{name}": t for name, t in tensors.items() if not name.endswith(counted)}
