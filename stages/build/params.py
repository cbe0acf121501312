"""The section `build` of `params.yaml`."""

from stages.common.section import Named, Section


class BuildParams(Section):
    """Which model of `stages/zoo/models`, with which arguments."""

    model: Named
