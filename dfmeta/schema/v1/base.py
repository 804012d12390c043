"""What every node of the manifest has in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dfmeta.schema.grammar import Symbol

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Dimension = Positive | Symbol
Shape = Annotated[list[Dimension], Field(max_length=8)]
Text = Annotated[str, Field(min_length=1)]


class Node(BaseModel):
    """One object of the manifest: typed strictly, frozen, and open to members that a later version adds.

    Unknown members are ignored and kept, so that rewriting a newer manifest loses nothing. ``null`` for an
    optional member means the same as leaving it out, and is left out when written.
    """

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absence(cls, members: Any) -> Any:
        if not isinstance(members, dict) or None not in members.values():
            return members
        # A member whose absence is None takes null itself, and a required one refuses it.
        filled = {
            field.alias or name
            for name, field in cls.model_fields.items()
            if not field.is_required() and field.default is not None
        }
        return {name: value for name, value in members.items() if value is not None or name not in filled}

    @model_serializer(mode="wrap")
    def _without_nulls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = {field.alias or name for name, field in type(self).model_fields.items()}
        members: dict[str, Any] = handler(self)
        return {name: value for name, value in members.items() if value is not None or name not in fields}
