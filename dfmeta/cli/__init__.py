"""The command line: one file a verb, thin: the work is done by public functions of the floors below.

``--json`` prints one JSON document on stdout, for errors too; everything else goes to stderr.
"""

from __future__ import annotations

from dfmeta.cli.app import main

__all__ = ["main"]
