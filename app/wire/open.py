"""What the bodies of other services' clients have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Open(BaseModel):
    """Unknown fields are let pass, as clients add some every month. Null is absent."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """It tells that null is absent."""
        schema = handler.resolve_ref_schema(handler(core))
        for name, field in schema["properties"].items():
            if name not in schema.get("required", ()) and "anyOf" not in field:
                told = {word: field.pop(word) for word in ("title", "description", "default") if word in field}
                schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **told}
        return schema


# Front ends send an empty one where none is chosen.
ModelName = Annotated[str, AfterValidator(lambda name: name or None)]


def at_most(limit: int) -> BeforeValidator:
    """Of a list: checked before its items are."""

    def check(items: object) -> object:
        if isinstance(items, list) and len(items) > limit:
            raise ValueError(f"{len(items)} items, at most {limit} are allowed")
        return items

    return BeforeValidator(check)
