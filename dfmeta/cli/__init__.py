"""The command line: one file a verb, each of which calls one public function of the pipeline.

``--json`` prints one JSON document on stdout, for errors too; everything else goes to stderr.
"""

from __future__ import annotations

from dfmeta.cli.app import main

__all__ = ["main"]
