"""The section `build` of `params.yaml`."""

from stages.common.config import Named, Section


class BuildParams(Section):
    """Which model of `stages/zoo/models`, with which arguments."""

    model: Named
