"""Targets: machine-readable profiles of runtimes and chips, one JSON file each, and whether a model fits.

The file name is the target's name. :func:`load` reads a profile, :func:`check` holds a graph against it.
"""

from __future__ import annotations

from dfmeta.export.targets.checking import Checked, check
from dfmeta.export.targets.profile import Board, Source, Target
from dfmeta.export.targets.reading import board, load, names
from dfmeta.export.targets.violation import Violation

__all__ = ["Board", "Checked", "Source", "Target", "Violation", "board", "check", "load", "names"]
