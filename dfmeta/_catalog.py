"""Name to module, by file name, plus entry points for outsiders.

The file name *is* the name (``_`` in the file, ``-`` in the name). Listing imports nothing; loading imports
exactly one module, and only for a name that the listing holds: a name from a file is never a path.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

from dfmeta.errors import DfmetaError, UnknownName


@dataclass(frozen=True, slots=True)
class Catalog:
    """The modules of one package, by name.

    Attributes:
        what: the sort of thing, in the singular, for messages: ``student``.
        package: dotted package whose files are the entries, and the entry point group for outsiders.
    """

    what: str
    package: str

    def names(self) -> tuple[str, ...]:
        """All names, sorted; imports nothing."""
        return tuple(sorted(self._owners()))

    def load(self, name: str, part: str = "") -> ModuleType:
        """The module of one entry.

        Args:
            name: an entry of :meth:`names`.
            part: a module inside the entry's folder, for catalogues whose entries are folders.

        Raises:
            UnknownName: no such entry.
        """
        owners = self._owners()
        if name not in owners:
            raise UnknownName(self.what, name, owners)
        module = owners[name]
        return importlib.import_module(f"{module}.{part}" if part else module)

    def has(self, name: str, part: str) -> bool:
        """Whether an entry of :meth:`names` has that module in its folder; imports no more than the folder."""
        return importlib.util.find_spec(f"{self._owners()[name]}.{part}") is not None

    def _owners(self) -> dict[str, str]:
        spec = importlib.util.find_spec(self.package)
        places = list(spec.submodule_search_locations or ()) if spec else []
        owners = {
            module.name.replace("_", "-"): f"{self.package}.{module.name}"
            for module in pkgutil.iter_modules(places)
            if not module.name.startswith("_")
        }
        for entry in _entry_points(self.package, tuple(sys.path)):
            if owners.get(entry.name, entry.value) != entry.value:
                raise DfmetaError(
                    f"{self.what} {entry.name!r}",
                    f"two owners, {owners[entry.name]} and {entry.value}",
                    "one",
                    "Uninstall one of the two packages, or rename its entry point.",
                )
            owners[entry.name] = entry.value
        return owners


@lru_cache(maxsize=64)
def _entry_points(group: str, path: tuple[str, ...]) -> importlib.metadata.EntryPoints:
    """Entry points of what is installed along a path: to read all of that takes milliseconds, and names are many."""
    del path
    return importlib.metadata.entry_points(group=group)


KINDS = Catalog("record kind", "dfmeta.kinds")
SYNTHESIS = Catalog("synthesis method", "dfmeta.synthesis")
STUDENTS = Catalog("student", "dfmeta.students")
