"""What the packages say they export is what they export, and it is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import dfmeta

FLOORS = tuple(f"dfmeta.{module.name}" for module in pkgutil.iter_modules(dfmeta.__path__) if module.ispkg)


def test_all_is_what_is_lazily_reachable() -> None:
    assert sorted(dfmeta.__all__) == sorted(dfmeta._HOMES)
    assert list(dfmeta.__all__) == sorted(dfmeta.__all__)
    for name in dfmeta.__all__:
        assert getattr(dfmeta, name) is getattr(importlib.import_module(dfmeta._HOMES[name]), name)
    assert set(dfmeta.__all__) <= set(dir(dfmeta))


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(dfmeta.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == dfmeta._HOMES


@pytest.mark.parametrize("name", dfmeta.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    item = getattr(dfmeta, name)
    assert inspect.getdoc(item)
    # A class without its own docstring would show its base's.
    assert item.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dfmeta' has no attribute 'no_such_name'"):
        dfmeta.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", FLOORS)
def test_every_floor_says_what_it_is_for_and_exports_what_it_says(name: str) -> None:
    floor = importlib.import_module(name)
    exported = getattr(floor, "__all__", ())
    for item in exported:
        assert hasattr(floor, item), f"{name}.{item}"
    # The catalogues' packages are folders of entries: kinds and the like may export nothing.
    assert floor.__doc__ or not exported
