"""What a student that is derived from its teacher starts from."""

from __future__ import annotations

from dataclasses import dataclass

from dfmeta.graph import Graph
from dfmeta.records import PublishedRecords


@dataclass(frozen=True, slots=True)
class Origin:
    """The teacher, and what was published about it.

    Attributes:
        graph: the released graph.
        records: its records; a derived student does without those that are not there.
    """

    graph: Graph
    records: PublishedRecords
