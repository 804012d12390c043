"""Tests for other people's tests: what every record kind must obey, to be run over one's own.

    import pytest
    from dfmeta.testing import KindCase, KindContract

    @pytest.mark.parametrize("case", [KindCase("extremes", features=4)], ids=str)
    class TestExtremes(KindContract):
        pass

It needs pytest and hypothesis (the extra ``testing``). dfmeta's own kinds are held to the same.

``python -m dfmeta.testing.conformance`` runs any reader of the format over the conformance vectors, and needs neither.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from dfmeta._lazily import exports
from dfmeta.errors import MissingExtra

_HOMES = {
    "KindCase": "dfmeta.testing.cases",
    "Stream": "dfmeta.testing.cases",
    "KindContract": "dfmeta.testing.kinds",
}

if TYPE_CHECKING:
    from dfmeta.testing.cases import KindCase, Stream
    from dfmeta.testing.kinds import KindContract
else:
    _find, __dir__ = exports(__name__, _HOMES)

    def __getattr__(name: str) -> object:
        """What was asked for, if what it needs is installed."""
        for package in ("pytest", "hypothesis") if name in _HOMES else ():
            if importlib.util.find_spec(package) is None:
                raise MissingExtra(package, "testing", "dfmeta.testing")
        return _find(name)


__all__ = ["KindCase", "KindContract", "Stream"]
