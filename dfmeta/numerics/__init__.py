"""The numerics floor: pure functions of arrays, which know nothing of models, files or records."""

from __future__ import annotations

from dfmeta.numerics.eigen import leading_eigenpairs

__all__ = ["leading_eigenpairs"]
