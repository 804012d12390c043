"""The bundle floor: a release as files. Read what is verified, validate everything, write all or nothing.

Nothing here runs a model, follows a link out of the folder, or uses the network.
"""

from __future__ import annotations

from dfmeta.bundle.reader import Bundle
from dfmeta.bundle.safetensors_strict import Entry, Header, parse_header, write_safetensors
from dfmeta.bundle.sidecar import usable
from dfmeta.bundle.validate import Report, validate
from dfmeta.bundle.writer import Content, write_bundle, write_file, write_folder

__all__ = [
    "Bundle",
    "Content",
    "Entry",
    "Header",
    "Report",
    "parse_header",
    "usable",
    "validate",
    "write_bundle",
    "write_file",
    "write_folder",
    "write_safetensors",
]
