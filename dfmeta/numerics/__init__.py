"""The numerics floor: pure functions of arrays, which know nothing of models, files or records."""

from __future__ import annotations

from dfmeta.numerics.correlation import repaired
from dfmeta.numerics.eigen import leading_eigenpairs
from dfmeta.numerics.packed import pack, unpack

__all__ = ["leading_eigenpairs", "pack", "repaired", "unpack"]
