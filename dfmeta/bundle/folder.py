"""A folder of a few files that is no bundle, written as carefully as one: it appears whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dfmeta.bundle.writer import _make_parents, _rename, _staged, _sync, _sync_parent, _write_new
from dfmeta.errors import OutputExists


def write_folder(path: str | os.PathLike[str], members: Mapping[str, bytes]) -> None:
    """Write a folder.

    Args:
        path: the folder to make; its parent exists.
        members: content by path inside it.

    Raises:
        OutputExists: something is at ``path`` already.
        BundleError: the disk refused; nothing is visible then.
    """
    final = Path(path)
    if os.path.lexists(final):
        raise OutputExists(final)
    with _staged(final) as folder:
        os.mkdir(folder, 0o777)
        folders = [folder]
        for name, content in sorted(members.items()):
            _make_parents(folder, name, folders)
            _write_new(folder / name, content)
        for each in reversed(folders):
            _sync(each)
        _rename(folder, final)
    _sync_parent(final)
