"""A model that others have trained, from a folder of Hugging Face's: texts or images.

    build: {model: {name: huggingface}, pretrained: data/raw/bert}
    prepare: {…, pretrained: data/raw/bert}

The folder has `config.json`, `model.safetensors` and, of texts, `tokenizer.json`, of images
`preprocessor_config.json`. Nothing is downloaded, and no code of the folder is run. `model.json`
takes the architecture along, so that after build nothing needs the folder.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stages.common.config import Config
from stages.common.errors import Problem, UserError
from stages.model.dropout import Dropout
from stages.model.layers import Flatten, FrozenNorm, register_constant

LIBRARIES = {"transformers": "5.24.0"}
NAME, PRETRAINED = "build.model.name", "build.pretrained"


class Arguments(Config):
    """`config` is the architecture as `config.json` has it; null: that of `build.pretrained`.

    `pool` is what becomes of the outputs: the model's `own` pooled output, its `first` place or the
    `mean` of all; null: its own where no weights of that would have to be drawn. `dropout` is the
    share of these numbers set to zero before the head.
    """

    config: dict[str, Any] | None = None
    pool: Literal["own", "first", "mean"] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class Model(nn.Module):
    """The body of the model, and a linear head on its pooled output and all other columns.

    Several columns of text go through the same body.
    """

    def __init__(
        self, arguments: Arguments, inputs: dict[str, list[int]], num_outputs: int
    ) -> None:
        super().__init__()
        if arguments.config is None:
            message = "huggingface has no architecture of its own: name the folder of a model"
            raise UserError(Problem(message, PRETRAINED, "null", ("data/raw/bert",)))
        self.body = make_body(arguments.config)
        self.kind = "text" if self.body.main_input_name == "input_ids" else "image"
        other = "image" if self.kind == "text" else "text"
        if self.kind not in inputs or (self.kind == "text" and other in inputs):
            found = self.body.config.model_type
            message = (
                f"huggingface with {found} takes {self.kind}s, with columns of numbers and "
                f"categories or without: {', '.join(inputs)} is here"
            )
            raise UserError(Problem(message, NAME, "huggingface", ("linear", "mlp")))
        self.lengths = inputs["text"][::2] if self.kind == "text" else [1]
        config = self.body.config
        check = check_texts if self.kind == "text" else check_images
        check(config, inputs[self.kind])
        self.pad = getattr(config, "pad_token_id", None) or 0
        pooler = getattr(self.body, "pooler", None)
        has_weights = pooler is not None and next(pooler.parameters(), None) is not None
        self.pool = arguments.pool or ("first" if has_weights else "own")
        if self.pool != "own":
            self.body.pooler = None
        others = {kind: shape for kind, shape in inputs.items() if kind != self.kind}
        self.flatten = Flatten(others) if others else None
        self.dropout = Dropout(arguments.dropout)
        # Of a network of several widths, that of its last part.
        width = getattr(config, "hidden_size", None) or config.hidden_sizes[-1]
        width = width * len(self.lengths) + (self.flatten.width if self.flatten else 0)
        self.output = nn.Linear(width, num_outputs)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs)."""
        parts = [self._run(**given) for given in self._split(batch[self.kind])]
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
        there = (
            given["attention_mask"][:, :, None].to(hidden.dtype) if self.kind == "text" else None
        )
        if there is None:
            return hidden.flatten(2).mean(dim=2) if hidden.ndim == 4 else hidden.mean(dim=1)
        return (hidden * there).sum(dim=1) / there.sum(dim=1)


def make_body(config: dict[str, Any]) -> Any:
    """The model of transformers that `config` describes, its weights drawn, without its randomness.

    Its dropout becomes the project's, which does not depend on the number of processes. Raises
    UserError for what is no encoder of texts or images.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.models.auto import modeling_auto as known
    from transformers.utils import logging

    # What it would say of each model of which only the body is taken.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    described = dict(config)
    kind = described.pop("model_type", None)
    is_encoder = kind in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    is_encoder |= kind in known.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    # What leaves out whole layers at random does so for all processes in another way.
    described |= dict.fromkeys(("drop_path_rate", "layerdrop") & described.keys(), 0.0)
    made = AutoConfig.for_model(kind, **described) if is_encoder else None
    if made is None or made.is_encoder_decoder:
        message = (
            f"{kind} is no encoder of texts or images that transformers "
            f"{LIBRARIES['transformers']} has: one that was trained on masked words (bert, "
            "distilbert, roberta, …), or one that classifies images (vit, convnext, resnet, …)"
        )
        raise UserError(Problem(message, PRETRAINED, str(kind)))
    if "quantization_config" in described:
        message = "the weights are quantized, and such are not trained: take those that are not"
        raise UserError(Problem(message, PRETRAINED, str(kind)))
    body = AutoModel.from_config(made, dtype=torch.float32)
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


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention (rows, heads, places, width), given as (rows, places, heads, width)."""
    if dropout == 0:
        found = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling
        )
        return found.transpose(1, 2), None
    weights = query @ key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        weights = torch.where(attention_mask, weights, torch.finfo(weights.dtype).min)
    elif attention_mask is not None:
        weights = weights + attention_mask
    drawn = module.get_submodule("drawn")
    assert isinstance(drawn, Dropout)
    drawn.p = dropout
    shares: Tensor = drawn(weights.softmax(dim=-1))
    return (shares @ value).transpose(1, 2), None


def check_texts(config: Any, shape: list[int]) -> None:
    """Raise UserError for texts of more tokens or places than the model has."""
    places, codes = max(shape[::2]), max(shape[1::2])
    if codes - 1 > config.vocab_size:
        message = (
            f"the texts have up to {codes - 1} different tokens, and the model knows "
            f"{config.vocab_size}: they are cut by the tokenizer of another model"
        )
        raise UserError(Problem(message, "prepare.pretrained"))
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and "roberta" in config.model_type:
        most -= config.pad_token_id + 1  # places are counted from behind it on
    if most is not None and 0 < most < places:
        message = f"a text has {places} places, and the model takes {most} tokens"
        said = f"{{kind: text, places: {most}}}"
        raise UserError(Problem(message, "prepare.columns", None, (said,)))


def check_images(config: Any, shape: list[int]) -> None:
    """Raise UserError for images of other channels, or of a size that the model does not take."""
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
    from transformers import AutoConfig, AutoModel

    described = dict(arguments.config or {})
    config = AutoConfig.for_model(described.pop("model_type"), **described)
    with torch.random.fork_rng(devices=[]):
        body, report = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    left = set(report["missing_keys"])
    tensors = {name: t for name, t in body.state_dict().items() if name not in left}
    counted = "num_batches_tracked"
    return {f"body.{name}": t for name, t in tensors.items() if not name.endswith(counted)}
