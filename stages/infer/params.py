"""The section `infer` of `params.yaml`."""

from typing import Annotated

from pydantic import Field

from stages.common.section import Section


class InferParams(Section):
    """The new rows: one file, as `prepare.source`, without the target."""

    input: Annotated[str, Field(min_length=1)]
