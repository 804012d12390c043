"""Sidecars and weights: the entries of the safetensors header, and the bytes that they speak of."""

from __future__ import annotations

import numpy as np

from vectors.container_edits import entry, header, raw_bytes, renamed, split, weights
from vectors.drafts import Draft, Json, cases_of, with_header
from vectors.manifests import SIDECAR, full, member, small

_invalid, _valid = cases_of("safetensors", clause="5.1", base=small)
_ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def _extra(draft: Draft) -> None:
    draft.sidecars["records"]["hidden"] = np.zeros(2)


def _moved_on(head: Json) -> None:
    """Every tensor eight bytes further on."""
    for name in head.keys() - {"__metadata__"}:
        head[name]["data_offsets"] = [8 + at for at in head[name]["data_offsets"]]


def _shuffled(raw: bytes) -> bytes:
    """The same tensors in another order, without padding before them."""
    header, data = split(raw)
    names, blocks, cursor = ["r0.var", "r0.mean", "r0.count"], [], 0
    for name in names:
        start, end = header[name]["data_offsets"]
        blocks.append(data[start:end])
        header[name]["data_offsets"] = [cursor, cursor := cursor + end - start]
    return with_header(header, b"".join(blocks), pad=1)


CASES = (
    _invalid("entry-with-more", code="bad-entry", comment="A fourth key.", draft=entry("r0.mean", stride=[1])),
    _invalid(
        "entry-with-less",
        code="bad-entry",
        comment="No shape.",
        draft=header(lambda head: head["r0.mean"].__delitem__("shape")),
    ),
    _invalid(
        "entry-is-a-list",
        code="bad-entry",
        comment="An entry that is no object.",
        draft=header(lambda head: head.update({"r0.mean": ["F32", [2], [0, 8]]})),
    ),
    _invalid(
        "dtype-bf16",
        code="bad-dtype",
        comment="A dtype that NumPy lacks.",
        draft=entry("r0.mean", dtype="BF16", shape=[4]),
    ),
    _invalid(
        "dtype-bool",
        code="bad-dtype",
        comment="Bytes other than 0 and 1 would have no meaning.",
        draft=entry("r0.mean", dtype="BOOL", shape=[8]),
    ),
    _invalid("dtype-unknown", code="bad-dtype", comment="Lower case.", draft=entry("r0.mean", dtype="f32")),
    _invalid("dtype-is-a-number", code="bad-dtype", comment="A number for a dtype.", draft=entry("r0.mean", dtype=32)),
    _invalid("nine-axes", code="bad-shape", comment="Rank 9.", draft=entry("r0.mean", shape=[2, *[1] * 8])),
    _invalid(
        "negative-extent",
        code="bad-shape",
        comment="Two extents whose product fits.",
        draft=entry("r0.mean", shape=[-1, -2]),
    ),
    _invalid(
        "extent-with-fraction", code="bad-shape", comment="2.0 for an integer.", draft=entry("r0.mean", shape=[2.0])
    ),
    _invalid("extent-is-true", code="bad-shape", comment="True is not 1.", draft=entry("r0.mean", shape=[2, True])),
    _invalid(
        "empty-and-endless",
        code="bad-shape",
        comment="No elements, but an axis that cannot be counted.",
        draft=header(lambda head: head["r0.mean"].update(shape=[0, 2**53 - 1, 2**53 - 1], data_offsets=[0, 0])),
    ),
    _invalid(
        "shape-is-larger",
        code="bad-offsets",
        comment="Shape and bytes contradict each other.",
        draft=entry("r0.mean", shape=[3]),
    ),
    _invalid(
        "shape-wraps-round",
        code="bad-shape",
        comment="A product of 2^64 + 2 in arithmetic without bounds.",
        draft=entry("r0.mean", shape=[2**33, 2**33]),
    ),
    _invalid(
        "offsets-reversed",
        code="bad-offsets",
        comment="The end before the start.",
        draft=entry("r0.mean", data_offsets=[16, 8]),
    ),
    _invalid(
        "offsets-beyond",
        code="bad-offsets",
        comment="An end after the file's.",
        draft=entry("r0.mean", data_offsets=[2**40, 2**40 + 8]),
    ),
    _invalid(
        "offsets-negative",
        code="bad-offsets",
        comment="A start before the data.",
        draft=entry("r0.mean", data_offsets=[-8, 0]),
    ),
    _invalid(
        "offsets-of-three",
        code="bad-offsets",
        comment="Three offsets.",
        draft=entry("r0.mean", data_offsets=[8, 16, 16]),
    ),
    _invalid(
        "overlap",
        code="overlap",
        comment="Two tensors of the same bytes.",
        draft=header(lambda head: head["r0.var"].update(data_offsets=[8, 16]), lambda data: data[:-8]),
    ),
    _invalid(
        "hole-at-the-end",
        code="hole",
        comment="Bytes after the last tensor.",
        draft=raw_bytes(lambda raw: raw + bytes(8)),
    ),
    _invalid(
        "hole-at-the-start",
        code="hole",
        comment="Bytes before the first tensor.",
        draft=header(_moved_on, lambda data: bytes(8) + data),
    ),
    _invalid(
        "hole-between",
        code="hole",
        comment="Bytes between two tensors.",
        draft=header(
            lambda head: head["r0.var"].update(data_offsets=[24, 32]), lambda data: data[:16] + bytes(8) + data[16:]
        ),
    ),
    _invalid(
        "name-in-upper-case", code="bad-tensor-name", clause="5.2", comment="Upper case.", draft=renamed("r0.Mean")
    ),
    _invalid("name-is-a-path", code="bad-tensor-name", clause="5.2", comment="A path.", draft=renamed("../r0.mean")),
    _invalid(
        "name-with-nul", code="bad-tensor-name", clause="5.2", comment="A NUL at the end.", draft=renamed("r0.mean\0")
    ),
    _invalid("empty-name", code="bad-tensor-name", clause="5.2", comment="No name.", draft=renamed("")),
    _invalid(
        "missing-tensor",
        code="missing-tensor",
        clause="5.2",
        comment="The manifest names one more.",
        draft=header(lambda head: head.__delitem__("r0.var"), lambda data: data[:-8]),
    ),
    _invalid(
        "hidden-tensor", code="unreferenced-tensor", clause="5.2", comment="The sidecar holds one more.", draft=_extra
    ),
    _invalid(
        "weights-with-a-hole",
        code="hole",
        comment="Weights keep the container's rules.",
        draft=weights({"w": _ENTRY}, bytes(9)),
    ),
    _invalid(
        "weights-that-overlap",
        code="overlap",
        comment="Weights keep the container's rules.",
        draft=weights({"a": _ENTRY, "b": _ENTRY}, bytes(8)),
    ),
    _invalid(
        "weights-of-unknown-dtype",
        code="bad-dtype",
        comment="No dtype of safetensors.",
        draft=weights({"w": _ENTRY | {"dtype": "F128"}}, bytes(8)),
    ),
    _invalid(
        "weights-metadata-of-numbers",
        code="bad-metadata",
        comment="Metadata is text.",
        draft=weights({"__metadata__": {"step": 1}}),
    ),
    _valid(
        "weights-of-other-dtypes",
        comment="Weights may have what a sidecar may not.",
        draft=weights(
            {
                "__metadata__": {"format": "pt", "by": "x"},
                "Block.0/w é": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
                "mask": {"dtype": "BOOL", "shape": [1, 1], "data_offsets": [8, 9]},
            },
            bytes(9),
        ),
    ),
    _valid(
        "weights-without-elements",
        comment="A tensor may be empty.",
        draft=weights({"w": _ENTRY | {"shape": [0, 5], "data_offsets": [0, 0]}}),
    ),
    _valid(
        "sidecar-in-another-order",
        comment="Any order, and no padding.",
        draft=raw_bytes(_shuffled),
    ),
    _valid(
        "sidecar-with-long-padding",
        comment="A header may be padded with spaces.",
        draft=raw_bytes(lambda raw: with_header(raw[8 : 8 + int.from_bytes(raw[:8], "little")] + b" " * 64, raw[-24:])),
    ),
    _valid(
        "sidecar-of-nothing",
        clause="5.2",
        comment="A sidecar that no record uses holds no tensor.",
        base=full,
        draft=lambda draft: draft.manifest["files"].append(
            member("spare", "records", "dfmeta/spare.safetensors", SIDECAR)
        ),
    ),
)
