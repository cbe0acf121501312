"""The base of every typed part of `params.yaml`: unknown keys and wrong types are errors."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of `params.yaml`: frozen, strict about types, no unknown keys, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Named(BaseModel):
    """A name and the arguments of what it names: `{name: AdamW, lr: 1e-3}`.

    Which arguments are right depends on the name, so whoever resolves the name checks them.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments, without the name."""
        return dict(self.model_extra or {})
