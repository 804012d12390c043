"""``spec/limits.json`` against the constants that the code enforces, and against the text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from dfmeta.bundle import safetensors_strict as container
from dfmeta.graph import gate, inference, wire
from dfmeta.kinds import _spectral
from dfmeta.kinds.histogram import spec as histogram
from dfmeta.kinds.second_moment import geometry
from dfmeta.kinds.second_moment import spec as second_moment
from dfmeta.schema import grammar, json_strict, v1
from dfmeta.schema.v1 import preprocessing

ROOT = Path(__file__).resolve().parents[2]
LIMITS: dict[str, Any] = json.loads((ROOT / "spec" / "limits.json").read_bytes())
OPEN = json.loads((ROOT / "spec" / "schema" / "dfmeta-1.0.schema.json").read_bytes())


def most(field: FieldInfo) -> int:
    """The largest length that a list may have."""
    (found,) = (limit for part in field.metadata if (limit := getattr(part, "max_length", None)) is not None)
    return int(found)


def enforced() -> dict[str, Any]:
    manifest, header = json_strict.MANIFEST_LIMITS, container._LIMITS
    definitions = OPEN["$defs"]
    (segment,) = re.findall(r"\{0,(\d+)\}$", grammar._SEGMENT)
    return {
        "format_version": v1.FORMAT_VERSION,
        "manifest": {
            "bytes": manifest.size,
            "levels": manifest.depth,
            "string_bytes": manifest.string_bytes,
            "array_items": manifest.array_items,
            "object_members": manifest.object_members,
            "largest_integer": json_strict.LARGEST_INTEGER,
            "files": most(v1.Manifest.model_fields["files"]),
            "label_sets": most(v1.Model.model_fields["label_sets"]),
            "required_features": most(v1.Manifest.model_fields["required_features"]),
            "operator_sets": most(v1.GraphRef.model_fields["opset_import"]),
            "addresses": most(v1.Site.model_fields["addresses"]),
            "operator_set_version": definitions["OpsetImport"]["properties"]["version"]["maximum"],
            "rank": most(v1.Input.model_fields["shape"]),
            "preprocessing_operations": preprocessing.PREPROCESSING.json_schema()["maxItems"],
            "pixels": definitions["CenterCrop"]["properties"]["size"]["items"]["maximum"],
            "channels": most(v1.Normalize.model_fields["mean"]),
        },
        "path": {
            "bytes": grammar.PATH_BYTES,
            "segments": 8
            if grammar.path_fault("/".join("abcdefghi")) and not grammar.path_fault("a/b/c/d/e/f/g/h")
            else 0,
            "segment_bytes": int(segment) + 1,
        },
        "file_bytes": v1.SIZE_LIMITS,
        "sidecar": {
            "header_bytes": container.HEADER_LIMIT,
            "header_levels": header.depth,
            "header_array_items": header.array_items,
            "header_string_bytes": header.string_bytes,
            "tensors": container.TENSOR_LIMIT,
            "rank": container.RANK_LIMIT,
            "tensor_name_bytes": grammar.TENSOR_NAME_BYTES,
            "weight_name_bytes": container.WEIGHT_NAME_BYTES,
            "tensor_bytes": 2**63 - 1,
        },
        "graph": {
            "bytes": gate.MAX_BYTES,
            "messages": wire.MAX_MESSAGES,
            "fields": wire.MAX_FIELDS,
            "nodes": gate.MAX_NODES,
            "initializers": gate.MAX_INITIALIZERS,
            "rank": gate.MAX_RANK,
            "elements": inference.MAX_ELEMENTS,
            "operator_set_oldest": min(gate.OPSETS),
            "operator_set_newest": max(gate.OPSETS),
        },
        "numbers": {
            "orthonormal_tolerance": _spectral.ORTHONORMAL_TOLERANCE,
            "cauchy_schwarz_tolerance": second_moment.CORRELATION_TOLERANCE,
            "semi_definite_tolerance": second_moment.SEMI_DEFINITE_TOLERANCE,
            "semi_definite_side": second_moment.LARGEST_TESTED_SIDE,
            "histogram_bins": len(histogram.BINS_BY_VALUE),
            "window_extent": geometry.MAX_EXTENT,
            "convolution_groups": geometry.MAX_GROUPS,
        },
    }


@pytest.mark.parametrize("part", LIMITS)
def test_the_published_limits_are_those_that_are_enforced(part):
    assert LIMITS[part] == enforced()[part]


def test_no_part_is_missing():
    assert LIMITS.keys() == enforced().keys()


def test_a_tensor_of_two_to_the_63_bytes_is_refused():
    entry = container._placed("t", "U8", (2**62, 2), (8, 8), 8)
    assert [problem.code for problem in entry] == ["bad-shape"]
    below = container._placed("t", "U8", (2**63 - 1,), (8, 8), 8)
    assert [problem.code for problem in below] == ["bad-offsets"]
