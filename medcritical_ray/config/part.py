"""What all parts of the config have in common."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A frozen part of the config that refuses unknown keys and values of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
