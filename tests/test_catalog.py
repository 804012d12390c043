"""Names come from files and from other people's packages, and only names are ever loaded."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dfmeta._catalog import KINDS, STUDENTS, SYNTHESIS, Catalog
from dfmeta.errors import DfmetaError, UnknownName

Plugin = Callable[[str, str], None]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    """A catalogue of a package made for one test: two files, a folder, and what does not count."""
    package = tmp_path / "shelf_of_tests"
    (package / "folder").mkdir(parents=True)
    for name in ("__init__", "plain", "two_words", "_private", "folder/__init__", "folder/spec"):
        (package / f"{name}.py").write_text(f"NAME = {name!r}\n")
    (package / "notes.txt").write_text("not a module")
    monkeypatch.syspath_prepend(tmp_path)
    yield Catalog("thing", "shelf_of_tests")
    for name in [name for name in sys.modules if name.startswith("shelf_of_tests")]:
        del sys.modules[name]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """Install a distribution with one entry point, by putting its folder on the path."""

    def install(name: str, target: str) -> None:
        place = tmp_path / f"site_{name}"
        (place / "outside-1.0.dist-info").mkdir(parents=True)
        (place / "outside-1.0.dist-info" / "METADATA").write_text("Name: outside\nVersion: 1.0\n")
        (place / "outside-1.0.dist-info" / "entry_points.txt").write_text(f"[shelf_of_tests]\n{name} = {target}\n")
        (place / "outside_module.py").write_text("NAME = 'from outside'\n")
        monkeypatch.syspath_prepend(place)
        importlib.invalidate_caches()

    return install


def test_the_file_name_is_the_name(shelf: Catalog) -> None:
    assert shelf.names() == ("folder", "plain", "two-words")
    assert not any(name.startswith("shelf_of_tests.") for name in sys.modules)
    assert shelf.load("two-words").NAME == "two_words"
    assert shelf.load("folder", "spec").NAME == "folder/spec"


@pytest.mark.parametrize("name", ["two_words", "_private", "folder.spec", "../plain", "os", ""])
def test_only_listed_names_load(shelf: Catalog, name: str) -> None:
    with pytest.raises(UnknownName) as error:
        shelf.load(name)
    assert error.value.known == ("folder", "plain", "two-words")


def test_a_near_match_is_offered(shelf: Catalog) -> None:
    with pytest.raises(UnknownName) as error:
        shelf.load("plane")
    assert str(error.value) == ("thing: found 'plane', expected one of folder, plain, two-words. Did you mean 'plain'?")


def test_outsiders_add_names_by_entry_point(shelf: Catalog, plugin: Plugin) -> None:
    plugin("extra", "outside_module")
    assert shelf.names() == ("extra", "folder", "plain", "two-words")
    assert "outside_module" not in sys.modules
    try:
        assert shelf.load("extra").NAME == "from outside"
    finally:
        sys.modules.pop("outside_module", None)


def test_two_owners_of_one_name_are_refused(shelf: Catalog, plugin: Plugin) -> None:
    plugin("plain", "outside_module")
    with pytest.raises(DfmetaError) as error:
        shelf.names()
    assert str(error.value) == (
        "thing 'plain': found two owners, shelf_of_tests.plain and outside_module, expected one. "
        "Uninstall one of the two packages, or rename its entry point."
    )


def test_a_catalogue_without_its_package_is_empty() -> None:
    assert Catalog("thing", "no_such_package").names() == ()


@pytest.mark.parametrize("catalog", [KINDS, SYNTHESIS, STUDENTS], ids=lambda catalog: catalog.what)
def test_our_own_catalogues_list_their_folders(catalog: Catalog, repository: Path) -> None:
    folder = repository.joinpath(*catalog.package.split("."))
    entries = {path.stem.replace("_", "-") for path in folder.iterdir() if path.name[0] not in "_."}
    assert set(catalog.names()) == entries
    assert entries


def test_listing_imports_nothing(repository: Path) -> None:
    code = (
        "import sys; from dfmeta._catalog import KINDS, STUDENTS, SYNTHESIS; "
        "[catalog.names() for catalog in (KINDS, STUDENTS, SYNTHESIS)]; "
        "print(*sorted(name for name in sys.modules if name.startswith('dfmeta') or name == 'torch'))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["dfmeta", "dfmeta._catalog", "dfmeta._lazily", "dfmeta.errors"]
