"""The section `infer` of `params.yaml`."""

from stages.common.section import Section
from stages.common.tablefile import TableFile


class InferParams(Section):
    """The new rows: one file, as `prepare.source`, without the target."""

    input: TableFile
