"""The section `build` of `params.yaml`."""

from stages.common.config import Named, Section


class BuildParams(Section):
    """Which model, with which arguments."""

    model: Named
    """The name of a file in `stages/zoo/models/`, and its arguments: `{name: mlp, width: 64}`."""
