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
LAZY = tuple(name for name in ("dfmeta", *FLOORS) if hasattr(importlib.import_module(name), "_HOMES"))


@pytest.mark.parametrize("name", LAZY)
def test_all_is_what_is_lazily_reachable(name: str) -> None:
    package = importlib.import_module(name)
    # What is small is imported at once, and stands in no table.
    eager = [item for item in package.__all__ if item not in package._HOMES]
    assert sorted(package.__all__) == sorted([*package._HOMES, *eager])
    for item, home in package._HOMES.items():
        assert getattr(package, item) is getattr(importlib.import_module(home), item)
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("name", LAZY)
def test_type_checkers_see_the_same_names(name: str) -> None:
    package = importlib.import_module(name)
    tree = ast.parse(Path(str(package.__file__)).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == package._HOMES


@pytest.mark.parametrize("name", LAZY)
def test_no_public_name_is_that_of_a_module(name: str) -> None:
    """Importing the module would put it in the name's place, unless the package imported the name before."""
    package = importlib.import_module(name)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not modules & package._HOMES.keys()


def test_every_lazy_package_is_examined() -> None:
    assert {"dfmeta", "dfmeta.graph", "dfmeta.pipeline", "dfmeta.records"} <= set(LAZY)


@pytest.mark.parametrize("name", dfmeta.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    item = getattr(dfmeta, name)
    assert inspect.getdoc(item)
    # A class without its own docstring would show its base's.
    assert item.__doc__


@pytest.mark.parametrize("name", LAZY)
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'no_such_name'"):
        importlib.import_module(name).no_such_name  # noqa: B018


@pytest.mark.parametrize("name", FLOORS)
def test_every_floor_says_what_it_is_for_and_exports_what_it_says(name: str) -> None:
    floor = importlib.import_module(name)
    exported = getattr(floor, "__all__", ())
    for item in exported:
        assert hasattr(floor, item), f"{name}.{item}"
    # The catalogues' packages are folders of entries: kinds and the like may export nothing.
    assert floor.__doc__ or not exported
