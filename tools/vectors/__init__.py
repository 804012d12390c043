"""The conformance vectors of format 1.0, as changes to two good bundles.

Nothing here uses dfmeta: what its writer writes and what its reader reads are held against these bytes, which depend
on neither.
"""

from __future__ import annotations

from vectors import (
    agreement_cases,
    attribute_cases,
    container_cases,
    digest_cases,
    future_cases,
    gate_cases,
    graph_cases,
    header_cases,
    json_cases,
    kind_cases,
    number_cases,
    path_cases,
    reference_cases,
    schema_cases,
    second_moment_cases,
)
from vectors.drafts import Case

CASES: tuple[Case, ...] = (
    *json_cases.CASES,
    *schema_cases.CASES,
    *path_cases.CASES,
    *reference_cases.CASES,
    *digest_cases.CASES,
    *header_cases.CASES,
    *container_cases.CASES,
    *number_cases.CASES,
    *kind_cases.CASES,
    *second_moment_cases.CASES,
    *gate_cases.CASES,
    *attribute_cases.CASES,
    *graph_cases.CASES,
    *future_cases.CASES,
    *agreement_cases.CASES,
)
"""Every case, by area."""
