"""dfmeta: publish what the data did to a model, not the data; compress the model from that alone.

Verbs: :func:`record`, :func:`record_shard`, :func:`merge`, :func:`publish`, :func:`validate`, :func:`reconstruct`,
:func:`distill`, :func:`quantize`, :func:`factorize`, :func:`prune`, :func:`convert_to`, :func:`convert_from`,
:func:`evaluate`. Nouns: :class:`Bundle`, :class:`Manifest`, :class:`Recorder`, :class:`Graph`.

Importing this package imports neither torch nor onnx: each name brings its own floor when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfmeta._lazily import exports

__version__ = "0.1.0"

_HOMES = {
    "Bundle": "dfmeta.bundle",
    "validate": "dfmeta.pipeline",
    "Manifest": "dfmeta.schema",
    "Graph": "dfmeta.graph",
    "Recorder": "dfmeta.records",
    "merge": "dfmeta.pipeline",
    "record": "dfmeta.pipeline",
    "record_shard": "dfmeta.pipeline",
    "publish": "dfmeta.pipeline",
    "reconstruct": "dfmeta.pipeline",
    "distill": "dfmeta.pipeline",
    "quantize": "dfmeta.pipeline",
    "factorize": "dfmeta.pipeline",
    "prune": "dfmeta.pipeline",
    "convert_to": "dfmeta.pipeline",
    "convert_from": "dfmeta.pipeline",
    "evaluate": "dfmeta.pipeline",
    "DfmetaError": "dfmeta.errors",
}

if TYPE_CHECKING:
    from dfmeta.bundle import Bundle
    from dfmeta.errors import DfmetaError
    from dfmeta.graph import Graph
    from dfmeta.pipeline import (
        convert_from,
        convert_to,
        distill,
        evaluate,
        factorize,
        merge,
        prune,
        publish,
        quantize,
        reconstruct,
        record,
        record_shard,
        validate,
    )
    from dfmeta.records import Recorder
    from dfmeta.schema import Manifest
else:
    __getattr__, __dir__ = exports(__name__, _HOMES)

__all__ = [
    "Bundle",
    "DfmetaError",
    "Graph",
    "Manifest",
    "Recorder",
    "convert_from",
    "convert_to",
    "distill",
    "evaluate",
    "factorize",
    "merge",
    "prune",
    "publish",
    "quantize",
    "reconstruct",
    "record",
    "record_shard",
    "validate",
]
