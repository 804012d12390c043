"""What must not travel in a release beside its numbers: paths of the publisher's machine, and addresses of people."""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx

from dfmeta.errors import DataError
from dfmeta.graph import Graph

# A home, which has its owner's name, wherever it lies; a drive of Windows; and a file's address.
_PATH = re.compile(r"(?<![\w.-])(?:/(?:home|Users|root)/|[A-Za-z]:\\|\\\\\w+\\|file://)[^\s\"'<>|]*")
# What begins as a path does, at the beginning of a word: of any folder, of a home, or of a drive.
_ROOTED = re.compile(r"(?<![^\s\"'`(\[{<>=,:;|])(?:/[^\s/\"'<>|]+/|~[\w.-]*/|[A-Za-z]:[\\/])[^\s\"'<>|]*")
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_LOGIN = re.compile(r"\b[A-Za-z][\w.+-]*@[A-Za-z][\w.-]*")
# What the publisher says in words of their own, a contact perhaps; what names a kind or a number says nothing.
_SAID = frozenset({"title", "description", "url", "name"})
_DATASET = ("datasets.name", ".dataset")
# Texts without a list of allowed values: elsewhere a word of the format may be somebody's name.
_FREE = frozenset({"title", "description", "name", "names", "label", "dataset", "notice", "version"})
# Software, and a publisher who says who they are.
_OTHERS_NAMES = ("publisher.name", "generator.name", "generator.version", "engine.name", "engine.version")
# Classes of Open Images (/m/01g317) and Places365 (/b/bakery/shop): no folder of a machine has one letter.
_LABEL = re.compile(r"/[a-z]/[\w/-]+")
# Names that many machines and accounts have; they tell of nobody.
_COMMON = re.compile(
    "admin|administrator|build|builder|codespace|computer|container|data|default|desktop|docker|fedora|guest|home|host|"
    "image|jovyan|laptop|linux|local|localdomain|localhost|machine|model|node|public|research|root|runner|server|test|"
    "ubuntu|user|username|users|vagrant|vscode|windows|worker|workspace|workstation",
    re.IGNORECASE,
)
_LEAST_LETTERS = 4


def require_none(graph: Graph, **said: Any) -> None:
    """Refuse to publish what would tell of the machine on which it was made, or name somebody by their address.

    Free text inside the graph is gone before (:func:`dfmeta.graph.metadata.without_text`); this is for names, which
    must stay what they are.

    Args:
        graph: what is published.
        said: documents in JSON types, by what to call them in messages.

    Raises:
        DataError: the text names the first one found, and where.
    """
    for where, text in _names(graph.model):
        _refuse(where, _PATH.search(text) or _own_home(text) or _ADDRESS.search(text))
    known, own = frozenset(name for _, name in _names(graph.model)), _own_names()
    for name, document in said.items():
        for where, text in _texts(document, name):
            _refuse(where, _PATH.search(text) or _own_home(text) or _rooted(where, text, known))
            _refuse(where, _address(where, text) or _own_name(where, text, own))


def _refuse(where: str, found: re.Match[str] | None) -> None:
    if found is not None:
        expected = "no paths of a machine, no user's or host's name, and nobody's address"
        raise DataError(where, repr(found[0][:100]), expected, "Change it: what is published is read by strangers.")


def _rooted(where: str, text: str, known: frozenset[str]) -> re.Match[str] | None:
    """The first path that is none of the graph's own names, which look alike: ``/layer1/conv/Conv_output_0``."""
    if text in known or (where.endswith("label_sets.names") and _LABEL.fullmatch(text)):
        return None
    found = (match for match in _ROOTED.finditer(text) if match[0].rstrip("`,;:.)]}") not in known)
    return next((match for match in found if match[0] not in known), None)


def _address(where: str, text: str) -> re.Match[str] | None:
    """An address for mail, or a login; a publisher may give their own where the words are theirs."""
    own_words = "." in where and where.rpartition(".")[2] in _SAID and not where.endswith(_DATASET)
    return None if own_words else _ADDRESS.search(text) or _LOGIN.search(text)


def _own_names() -> re.Pattern[str] | None:
    """Whoever is logged in, and the machine's name: whole words, whether in capitals or not."""
    host = platform.node()
    names = {host, host.partition(".")[0]}
    # An account without an entry, as a container may have.
    with suppress(OSError, KeyError, ImportError):
        names.add(getpass.getuser())
    telling = [
        re.escape(name)
        for name in names
        if sum(map(str.isalpha, name)) >= _LEAST_LETTERS and not _COMMON.fullmatch(name)
    ]
    return re.compile(rf"(?<!\w)(?:{'|'.join(sorted(telling))})(?!\w)", re.IGNORECASE) if telling else None


def _own_name(where: str, text: str, own: re.Pattern[str] | None) -> re.Match[str] | None:
    free = where.rpartition(".")[2] in _FREE and not where.endswith(_OTHERS_NAMES)
    return own.search(text) if own is not None and free else None


def _own_home(text: str) -> re.Match[str] | None:
    home = str(Path.home())
    return re.search(re.escape(home) + r"[/\\][^\s\"']*", text) if len(home) > 1 else None


def _names(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    graph = model.graph
    yield "the graph's name", graph.name
    yield "the graph's producer", f"{model.producer_name} {model.producer_version} {model.domain}"
    for node in graph.node:
        yield "the name of a node", node.name
        for name in node.output:
            yield "the name of a value", name
    for named in (*graph.input, *graph.initializer, *graph.output):
        yield "the name of a value", named.name


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, where)
