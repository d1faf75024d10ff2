"""What the bodies of other services' clients have in common."""

from __future__ import annotations

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Open(BaseModel):
    """Unknown fields are let pass, as clients add some every month."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)


def at_most(limit: int) -> BeforeValidator:
    """Of a list: checked before its items are."""

    def check(items: object) -> object:
        if isinstance(items, list) and len(items) > limit:
            raise ValueError(f"{len(items)} items, at most {limit} are allowed")
        return items

    return BeforeValidator(check)
