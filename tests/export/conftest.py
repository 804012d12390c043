"""Where the tests of this folder find the graphs that they share."""

from __future__ import annotations

import sys
from pathlib import Path

# What makes them is a module beside this file, for tests that are parametrised with graphs.
sys.path.insert(0, str(Path(__file__).parent))
