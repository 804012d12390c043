"""The compress floor: steps that make a model smaller. One file each; the file's name is the step's."""

from __future__ import annotations
