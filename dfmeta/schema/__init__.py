"""The schema floor: what a manifest may say, and whether one says it.

Nothing here opens a file, follows a link or needs a model. :mod:`dfmeta.schema.v1` holds the typed nodes of
format 1; :func:`load_manifest` is the one way in and :func:`dump_manifest` the one way out.
"""

from __future__ import annotations

from dfmeta.schema.grammar import MANIFEST_NAME, SHARD_NAME
from dfmeta.schema.json_schema import json_schema
from dfmeta.schema.manifest import Loaded, dump_manifest, load_manifest, load_preprocessing
from dfmeta.schema.references import probe_tensor_names
from dfmeta.schema.v1 import Manifest

__all__ = [
    "MANIFEST_NAME",
    "SHARD_NAME",
    "Loaded",
    "Manifest",
    "dump_manifest",
    "json_schema",
    "load_manifest",
    "load_preprocessing",
    "probe_tensor_names",
]
