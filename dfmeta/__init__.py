"""dfmeta: publish what the data did to a model, not the data; compress the model from that alone.

Verbs: :func:`record`, :func:`record_shard`, :func:`merge`, :func:`publish`, :func:`validate`, :func:`reconstruct`,
:func:`distill`, :func:`evaluate`. Nouns: :class:`Bundle`, :class:`Manifest`, :class:`Recorder`, :class:`Graph`.

Importing this package imports neither torch nor onnx: each name brings its own floor when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

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
    "evaluate": "dfmeta.pipeline",
    "DfmetaError": "dfmeta.errors",
}

if TYPE_CHECKING:
    from dfmeta.bundle import Bundle
    from dfmeta.errors import DfmetaError
    from dfmeta.graph import Graph
    from dfmeta.pipeline import distill, evaluate, merge, publish, reconstruct, record, record_shard, validate
    from dfmeta.records import Recorder
    from dfmeta.schema import Manifest

__all__ = [
    "Bundle",
    "DfmetaError",
    "Graph",
    "Manifest",
    "Recorder",
    "distill",
    "evaluate",
    "merge",
    "publish",
    "reconstruct",
    "record",
    "record_shard",
    "validate",
]


def __getattr__(name: str) -> object:
    """Import a public name from its floor on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dfmeta' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
