"""Other tools' records in ours: the half of the verb ``convert`` that begins with their files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dfmeta.errors import DataError, UnknownName
from dfmeta.graph import Graph
from dfmeta.graph.operator_inputs import operator_inputs
from dfmeta.pipeline.inputs import graph_inputs
from dfmeta.pipeline.outputs import require_free
from dfmeta.pipeline.release import Published, Release, publish
from dfmeta.records import DEFAULT_MIN_UNITS
from dfmeta.records.flat_hessian_files import read_flat_hessians
from dfmeta.records.foreign_moments import ForeignFile, LeftOut, assign
from dfmeta.records.foreign_names import by_map, by_rules, read_map
from dfmeta.records.imatrix_files import read_imatrix
from dfmeta.schema import v1

From = Literal["imatrix", "flat-hessian"]
READERS: Mapping[str, Callable[[Sequence[str | Path]], ForeignFile]] = {
    "imatrix": read_imatrix,
    "flat-hessian": read_flat_hessians,
}


@dataclass(frozen=True, slots=True)
class Imported:
    """What :func:`convert_from` wrote.

    Attributes:
        published: the bundle.
        format: of the files.
        form: of the second moments.
        used: name of an entry to labels of the operators that read what it speaks of.
        left_out: entries that became no record, and why.
        uncovered: operators without a record, and why.
        notes: what a reader should know, in sentences.
    """

    published: Published
    format: str
    form: str
    used: Mapping[str, tuple[str, ...]]
    left_out: tuple[LeftOut, ...]
    uncovered: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()


def convert_from(
    files: Sequence[str | Path],
    out: str | Path,
    format: From,
    *,
    model: Graph,
    names: str | None = None,
    release: Release | None = None,
    min_units: int = DEFAULT_MIN_UNITS,
) -> Imported:
    """Write a bundle of a model and the second moments that another tool recorded of it, or write nothing.

    Args:
        files: what the tool wrote. Several importance matrices are added up; of flat Hessians each file is a layer.
        out: the bundle's folder; must not exist.
        format: ``imatrix``, llama.cpp's GGUF or ``.dat``, as records of form ``diagonal``; or ``flat-hessian``, the
            files of QuIP# and its followers, as records of form ``full``.
        model: the graph whose weights the files speak of. No file says which model it is of: that is up to the user.
        names: file with a map from the files' names to the graph's weights; None to match by rules
            (:mod:`dfmeta.records.foreign_names`).
        release: what to say about it.
        min_units: least chunks or rows behind what is published.

    Raises:
        OutputExists: ``out`` is taken.
        UnknownName: another format, or names in the map that are nowhere.
        MissingExtra: llama.cpp's names without the package that explains them, and no map.
        DataError: files that cannot be read, that fit no weight, or that contradict each other.
        GraphError: a graph without such records.
    """
    if format not in READERS:
        raise UnknownName("format", format, READERS)
    if not files:
        raise DataError("files", "none", "one or more", "Give what the other tool wrote.")
    require_free(out)
    found = READERS[format](files)
    reads = operator_inputs(model)
    entries = [moment.name for moment in found.moments]
    matched = by_rules(entries, reads) if names is None else by_map(entries, reads, read_map(names))
    made = assign(model, found, matched.reads, matched.unmatched, min_units=min_units, strict=names is not None)
    about = replace(release or Release(), unit=found.unit)
    engine = v1.Engine(name=found.software[0], version=found.software[1])
    published = publish(out, model, made.recording, inputs=graph_inputs(model), release=about, engine=engine)
    notes = ["no file of this format says which model it was taken of: nothing but names and sizes was compared"]
    bare = [moment.name for moment in found.moments if moment.name in made.used and moment.mean is None]
    if bare:
        notes.append("the files hold no means: zeros stand for them, and biases are not corrected")
    if found.sources:
        notes.append(f"taken over {json.dumps(found.sources)[:200]}, as the files say")
    form = found.moments[0].form
    return Imported(published, format, form, made.used, made.left_out, made.uncovered, tuple(notes))
