"""What two portions must have in common to be merged, in words, and where they differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dfmeta._catalog import KINDS
from dfmeta.errors import MergeError
from dfmeta.records.plan import RecordPlan
from dfmeta.schema import v1

_FIX = {
    "graph_sha256": "Record every part with the very same model file.",
    "batch_size": "Record every part with the same --batch-size.",
    "classes": "Record every part with classes, or every part without (--no-classes).",
    "inputs": "Record every part with the same preprocessing.",
    "exact": "Record every part with --exact, or every part without.",
}


class Configuration(BaseModel):
    """What was recorded, and how. Portions of different configurations are not added up.

    Attributes:
        graph_sha256: of the graph's bytes.
        inputs: the model's inputs, with their preprocessing.
        plan: sites, kinds, groups, layouts and the kinds' own parameters.
        kinds: the version of each kind's specification.
        classes: how many there are; None for records over all units only.
        label_names: their names, where the data has any.
        batch_size: units in a batch: batches are the grains that are never cut.
        clip: what units were scaled down to while they were gathered; see :class:`dfmeta.records.Gathered`.
        exact: whether float64 was used from the activations on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    graph_sha256: str
    inputs: tuple[v1.Input, ...]
    plan: tuple[RecordPlan, ...]
    kinds: dict[str, int]
    classes: int | None = Field(ge=1)
    label_names: tuple[str, ...] | None
    batch_size: int = Field(ge=1)
    clip: float | dict[str, float] | None = None
    exact: bool = False

    @property
    def words(self) -> dict[str, Any]:
        """The same in JSON types."""
        return self.model_dump(mode="json")

    @property
    def sha256(self) -> str:
        """Of those words."""
        return hashlib.sha256(json.dumps(self.words, sort_keys=True).encode()).hexdigest()


def kind_versions(plan: Sequence[RecordPlan]) -> dict[str, int]:
    """The version of each kind that a plan takes."""
    return {kind: int(KINDS.load(kind, "spec").VERSION) for kind in sorted({entry.kind for entry in plan})}


def require_same(
    where: str, words: Mapping[str, Any], reference: str, expected: Mapping[str, Any], fix: str | None = None
) -> None:
    """Refuse a configuration that is not the expected one.

    Args:
        where: whose words these are.
        words: in JSON types.
        reference: whose the expected ones are.
        expected: the same of another.
        fix: what to do; None for what makes parts alike.

    Raises:
        MergeError: naming the first member that differs, and both its values.
    """
    difference = _first_difference(words, expected, "")
    if difference is None:
        return
    place, found, wanted = difference
    fix = fix or _FIX.get(place.partition(".")[0].partition("[")[0], "Record every part with the same options.")
    raise MergeError(f"{where}, {place}", found, f"{wanted}, as in {reference}", fix)


def _first_difference(one: Any, two: Any, place: str) -> tuple[str, str, str] | None:
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        for key in [*two, *(key for key in one if key not in two)]:
            where = f"{place}.{key}" if place else str(key)
            if key not in one or key not in two:
                return where, _shown(one.get(key, "nothing")), _shown(two.get(key, "nothing"))
            found = _first_difference(one[key], two[key], where)
            if found:
                return found
        return None
    if isinstance(one, list) and isinstance(two, list):
        for index, (mine, theirs) in enumerate(zip(one, two, strict=False)):
            found = _first_difference(mine, theirs, f"{place}[{index}]")
            if found:
                return found
        return None if len(one) == len(two) else (place, f"{len(one)} entries", f"{len(two)}")
    return None if one == two else (place, _shown(one), _shown(two))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
