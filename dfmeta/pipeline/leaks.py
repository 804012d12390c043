"""What must not travel in a release beside its numbers: paths of the publisher's machine, and addresses of people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from dfmeta.errors import DataError
from dfmeta.graph import Graph

# A home, which has its owner's name, wherever it lies; a drive of Windows; and a file's address.
_PATH = re.compile(r"(?<![\w.-])(?:/(?:home|Users|root)/|[A-Za-z]:\\|\\\\\w+\\|file://)[^\s\"'<>|]*")
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
# What the publisher says in words of their own, a contact perhaps; what names a kind or a number says nothing.
_SAID = frozenset({"title", "description", "url", "name"})


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
    documents = (item for name, document in said.items() for item in _texts(document, name))
    for where, text in (*_names(graph.model), *documents):
        own_words = "." in where and where.rpartition(".")[2] in _SAID
        found = _PATH.search(text) or _own_home(text) or (None if own_words else _ADDRESS.search(text))
        if found is not None:
            fix = "Change it: what is published is read by strangers."
            raise DataError(where, repr(found[0][:100]), "no paths of a machine, and nobody's address", fix)


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
