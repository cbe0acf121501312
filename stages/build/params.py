"""The section `build` of `params.yaml`."""

from stages.common.config import ClassSpec, Config


class BuildParams(Config):
    """Which model, with which arguments."""

    model: ClassSpec
    """The name of a file in `stages/zoo/models/`, and its arguments: `{name: mlp, width: 64}`."""
