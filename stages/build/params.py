"""The section `build` of `params.yaml`."""

from typing import Annotated

from pydantic import Field

from stages.common.config import ClassSpec, Config


class BuildParams(Config):
    """Which model, with which arguments, and where its first weights come from."""

    model: ClassSpec
    """The name of a file in `stages/zoo/models/`, and its arguments: `{name: mlp, width: 64}`."""
    pretrained: Annotated[str, Field(min_length=1)] | None
    """A file of weights to start from, such as `data/raw/other/model.safetensors`: safetensors, or
    a state dict of torch. What has the name and the shape of a weight of the model is taken. For
    the model `huggingface` the folder of the model, such as `data/raw/bert`. null: all are drawn.
    """
