"""Tests for other people's tests: what every record kind must obey, to be run over one's own.

    import pytest
    from dfmeta.testing import KindCase, KindContract

    @pytest.mark.parametrize("case", [KindCase("extremes", features=4)], ids=str)
    class TestExtremes(KindContract):
        pass

It needs pytest and hypothesis (the extra ``testing``). dfmeta's own kinds are held to the same.
"""

from __future__ import annotations

import importlib.util

from dfmeta.errors import MissingExtra

for _package in ("pytest", "hypothesis"):
    if importlib.util.find_spec(_package) is None:
        raise MissingExtra(_package, "testing", "dfmeta.testing")

from dfmeta.testing.cases import KindCase, Stream  # noqa: E402 - they import what was looked for
from dfmeta.testing.kinds import KindContract  # noqa: E402

__all__ = ["KindCase", "KindContract", "Stream"]
