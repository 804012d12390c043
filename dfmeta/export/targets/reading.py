"""Profiles by name: the files of this folder."""

from __future__ import annotations

from importlib import resources

from dfmeta.errors import UnknownName
from dfmeta.export.targets.profile import Board, Target

_FOLDER = "dfmeta.export.targets"
_SUFFIX = ".json"


def names() -> tuple[str, ...]:
    """All targets, sorted; reads none of them."""
    files = (item.name for item in resources.files(_FOLDER).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)))


def load(name: str) -> Target:
    """The profile of one target.

    Raises:
        UnknownName: no such target; the text offers a near match.
    """
    known = names()
    if name not in known:
        raise UnknownName("target", name, known)
    return Target.model_validate_json((resources.files(_FOLDER) / f"{name}{_SUFFIX}").read_bytes())


def board(target: Target, name: str) -> Board:
    """One board of a target.

    Raises:
        UnknownName: the target has no such board.
    """
    found = {one.name: one for one in target.boards}
    if name not in found:
        raise UnknownName(f"board of {target.name}", name, found)
    return found[name]
