"""Sidecars: the safetensors header, its bytes and its metadata."""

from __future__ import annotations

from vectors.container_edits import entry, header, header_text, raw_bytes
from vectors.drafts import BUNDLE, cases_of, with_header
from vectors.manifests import small

_invalid, _valid = cases_of("safetensors", clause="5.1", base=small)

CASES = (
    _invalid(
        "header-of-nothing",
        code="header-length",
        comment="Length 0.",
        draft=raw_bytes(lambda raw: bytes(8) + raw[8:]),
    ),
    _invalid(
        "header-beyond-the-file",
        code="header-length",
        comment="A length of all bytes and one more.",
        draft=raw_bytes(lambda raw: (len(raw) - 7).to_bytes(8, "little") + raw[8:]),
    ),
    _invalid(
        "header-of-exabytes",
        code="header-length",
        comment="A length of 2^63.",
        draft=raw_bytes(lambda raw: (2**63).to_bytes(8, "little") + raw[8:]),
    ),
    _invalid(
        "header-big-endian",
        code="header-length",
        comment="A length the other way round.",
        draft=raw_bytes(lambda raw: raw[7::-1] + raw[8:]),
    ),
    _invalid(
        "sidecar-of-four-bytes",
        code="truncated",
        comment="Fewer bytes than a length has.",
        draft=raw_bytes(lambda raw: raw[:4]),
    ),
    _invalid("header-after-a-space", code="header-start", comment="White space first.", draft=header_text("{", " {")),
    _invalid(
        "header-is-a-list",
        code="header-start",
        comment="A list of tensors.",
        draft=raw_bytes(lambda raw: with_header([], raw[-24:])),
    ),
    _invalid("header-not-json", code="not-json", comment="No quotes.", draft=header_text('"dtype"', "dtype")),
    _invalid(
        "header-and-more",
        code="not-json",
        comment="Two objects in one header.",
        draft=raw_bytes(lambda raw: with_header(b"{}" + raw[8 : 8 + int.from_bytes(raw[:8], "little")], raw[-24:])),
    ),
    _invalid("header-not-utf8", code="not-utf8", comment="Latin-1.", draft=header_text("r0.mean", "r0.m\xe9an")),
    _invalid(
        "header-with-nan",
        code="not-a-number",
        comment="NaN for an offset.",
        draft=header_text('"data_offsets":[0,', '"data_offsets":[NaN,'),
    ),
    _invalid(
        "header-with-2-to-the-53",
        code="number-out-of-range",
        comment="An offset beyond exact integers.",
        draft=entry("r0.mean", data_offsets=[0, 2**53]),
    ),
    _invalid(
        "offset-of-minus-zero",
        code="bad-offsets",
        comment="-0, which is no integer to safetensors.",
        draft=header_text('"data_offsets":[0,', '"data_offsets":[-0,'),
    ),
    _invalid(
        "dimension-of-minus-zero",
        code="bad-shape",
        comment="-0 for a dimension.",
        draft=header_text('"shape":[2]', '"shape":[-0]'),
    ),
    _invalid("header-too-deep", code="too-deep", comment="Five levels.", draft=entry("r0.mean", shape=[[[2]]])),
    _invalid(
        "duplicate-name",
        code="duplicate-key",
        comment="A tensor twice.",
        draft=header_text('"r0.count":', '"r0.mean":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"r0.count":'),
    ),
    _invalid(
        "duplicate-metadata",
        code="duplicate-key",
        comment="A key of the metadata twice.",
        draft=header_text('{"dfmeta":', '{"dfmeta":"","dfmeta":'),
    ),
    _invalid(
        "no-metadata",
        code="bad-metadata",
        comment="Whose sidecar?",
        draft=header(lambda head: head.__delitem__("__metadata__")),
    ),
    _invalid(
        "two-metadata-keys",
        code="bad-metadata",
        comment="A second key.",
        draft=header(lambda head: head["__metadata__"].update(format="pt")),
    ),
    _invalid(
        "other-metadata-key",
        code="bad-metadata",
        comment="Another key.",
        draft=header(lambda head: head.update({"__metadata__": {"bundle": BUNDLE}})),
    ),
    _invalid(
        "metadata-of-a-number",
        code="bad-metadata",
        comment="A value that is no string.",
        draft=header(lambda head: head.update({"__metadata__": {"dfmeta": 1}})),
    ),
    _invalid(
        "sidecar-of-another",
        code="wrong-bundle",
        comment="Another bundle's sidecar.",
        draft=header(lambda head: head["__metadata__"].update(dfmeta=BUNDLE[:-1] + "1")),
    ),
)
