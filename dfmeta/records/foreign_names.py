"""Which weight of a graph a name from another tool means.

Names prove nothing, so matching is kept to rules that can be said in a sentence: equal names, once folders, dots and
what exporters put around them are taken off; QuIP#'s ``<layer>_<role>``; and llama.cpp's ``blk.<layer>.<role>``, by the
table that its own package ``gguf`` keeps. Whatever fits no rule, or several weights where one is meant, is left to a
map.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from dfmeta.errors import DataError, MissingExtra, UnknownName
from dfmeta.graph.operator_inputs import OperatorInput
from dfmeta.records._foreign_bytes import read_bytes
from dfmeta.records.foreign_moments import LeftOut
from dfmeta.schema import json_strict

EXTRA = "imatrix"
_MAP_LIMITS = json_strict.Limits(size=16 * 2**20, depth=3)
_ROOTS = ("model", "module", "transformer", "base_model", "main_graph", "onnx")
_TAILS = ("weight", "kernel", "MatMul", "Gemm", "Conv", "Transpose")
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
_FLAT = re.compile(r"(\d+)_([a-z0-9]+)")
_LLAMA = re.compile(r"(?:blk\.(\d+)\.)?([a-z0-9_]+)\.weight(?:\[\d+\])?")
_ROLES: Mapping[str, frozenset[str]] = {
    "qkv": frozenset({"q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "query", "key", "value"}),
    "q": frozenset({"q_proj", "query"}),
    "k": frozenset({"k_proj", "key"}),
    "v": frozenset({"v_proj", "value"}),
    "o": frozenset({"o_proj", "out_proj"}),
    "up": frozenset({"up_proj", "gate_proj", "gate_up_proj"}),
    "down": frozenset({"down_proj"}),
    "fc1": frozenset({"fc1"}),
    "fc2": frozenset({"fc2"}),
}


@dataclass(frozen=True, slots=True)
class Matched:
    """What names mean.

    Attributes:
        reads: name to the weight operators that it speaks of.
        unmatched: names that fit none, and why.
    """

    reads: Mapping[str, tuple[OperatorInput, ...]]
    unmatched: tuple[LeftOut, ...]


def read_map(path: str) -> dict[str, tuple[str, ...]]:
    """A map of names: a JSON object from another tool's name to a weight of the graph, or to a list of them.

    Raises:
        DataError: no such file, or another document.
        SchemaError: no strict JSON.
    """
    document = json_strict.parse(read_bytes(path, _MAP_LIMITS.size), path, _MAP_LIMITS)
    if not isinstance(document, dict) or not document:
        raise DataError(path, json_strict.shown(document), "an object from foreign names to the graph's weights")
    found = {}
    for name, value in document.items():
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(isinstance(each, str) for each in names):
            raise DataError(f"{path}: {name!r}", json_strict.shown(value), "a name of the graph, or a list of them")
        found[name] = tuple(names)
    return found


def by_map(names: Sequence[str], reads: Sequence[OperatorInput], given: Mapping[str, Sequence[str]]) -> Matched:
    """What a user's map says; names that it does not have mean what they are equal to.

    Raises:
        UnknownName: a name that is not in the file, or not in the graph.
    """
    named = _index(reads)
    for foreign, weights in given.items():
        if foreign not in names:
            raise UnknownName("name in the map", foreign, names)
        for weight in weights:
            if weight not in named:
                raise UnknownName("weight in the map", weight, named)
    found = {name: tuple(read for weight in weights for read in named[weight]) for name, weights in given.items()}
    rest = {name: named.get(name, ()) for name in names if name not in found}
    found |= {name: equal for name, equal in rest.items() if equal}
    missing = [LeftOut(name, "the map does not have it") for name in names if name not in found]
    return Matched(found, tuple(missing))


def by_rules(names: Sequence[str], reads: Sequence[OperatorInput]) -> Matched:
    """What names mean by the rules of this module.

    Raises:
        MissingExtra: names of llama.cpp's kind that nothing else explains, and no package ``gguf`` to look them up.
    """
    exact = _index(reads)
    plain: dict[str, set[OperatorInput]] = {}
    for read in reads:
        for name in {_plain(read.weight), _plain(read.label)}:
            plain.setdefault(name, set()).add(read)
    found: dict[str, tuple[OperatorInput, ...]] = {}
    missing = []
    for name in names:
        matched = exact.get(name, ()) or _sorted(plain.get(_plain(name), ()), reads)
        if len({read.weight for read in matched}) > 1:
            labels = ", ".join(read.label for read in matched[:4])
            missing.append(LeftOut(name, f"it could be any of {labels}"))
            continue
        matched = matched or _flat(name, reads) or _llama(name, plain, reads)
        if matched:
            found[name] = matched
        else:
            missing.append(LeftOut(name, "no weight of the graph has such a name"))
    return Matched(found, tuple(missing))


def _index(reads: Sequence[OperatorInput]) -> dict[str, tuple[OperatorInput, ...]]:
    """Operators by the name of their weight, and by their own."""
    named: dict[str, list[OperatorInput]] = {}
    for read in reads:
        for name in {read.weight, read.label}:
            named.setdefault(name, []).append(read)
    return {name: tuple(found) for name, found in named.items()}


def _plain(name: str) -> str:
    """A name without what exporters put around it: ``/model/layers.0/fc/MatMul`` is ``layers.0.fc``."""
    parts = [part for part in re.split(r"[./:]+", name) if part]
    while len(parts) > 1 and parts[0] in _ROOTS:
        parts = parts[1:]
    while len(parts) > 1 and re.sub(r"_\d+$", "", parts[-1]) in _TAILS:
        parts = parts[:-1]
    return ".".join(parts)


def _sorted(found: Iterable[OperatorInput], reads: Sequence[OperatorInput]) -> tuple[OperatorInput, ...]:
    chosen = set(found)
    return tuple(read for read in reads if read in chosen)


def _flat(name: str, reads: Sequence[OperatorInput]) -> tuple[OperatorInput, ...]:
    """``12_qkv``: every weight of that layer in that role. They share the file because they read one value."""
    match = _FLAT.fullmatch(name)
    if match is None or match[2] not in _ROLES:
        return ()
    found = []
    for read in reads:
        for each in (_plain(read.weight), _plain(read.label)):
            layer = _LAYER.search(each)
            if layer and int(layer[1]) == int(match[1]) and each.rsplit(".", 1)[-1] in _ROLES[match[2]]:
                found.append(read)
                break
    return tuple(found)


def _llama(
    name: str, plain: Mapping[str, set[OperatorInput]], reads: Sequence[OperatorInput]
) -> tuple[OperatorInput, ...]:
    """``blk.12.attn_q.weight``: the one weight that any architecture calls so."""
    match = _LLAMA.fullmatch(name)
    if match is None or (match[1] is None and match[2] != "output"):
        return ()
    found = {read for template in _templates(match[2], match[1]) for read in plain.get(_plain(template), ())}
    matched = _sorted(found, reads)
    return matched if len({read.weight for read in matched}) == 1 else ()


def llama_names(reads: Sequence[OperatorInput]) -> dict[str, str]:
    """Weight to llama.cpp's name of it, for those that its table knows.

    Where architectures call the same weight differently (RWKV has other words for a transformer's), the word that most
    of them use counts; where no word is the most frequent, there is none.

    Raises:
        MissingExtra: no package ``gguf``.
    """
    table = _table()
    found = {}
    for read in reads:
        for each in (_plain(read.weight), _plain(read.label)):
            layer = _LAYER.search(each)
            key = each if layer is None else f"{each[: layer.start(1)]}{{bid}}{each[layer.end(1) :]}"
            if key in table:
                found[read.weight] = f"{table[key].format(bid=layer[1] if layer else '')}.weight"
                break
    return found


def _table() -> dict[str, str]:
    """Name of a weight, its layer ``{bid}``, to llama.cpp's."""
    constants, tables = _package()
    frequency = Counter(tensor for tensors in constants.MODEL_TENSORS.values() for tensor in tensors)
    known: dict[str, dict[str, int]] = {}
    for mapping in (tables.TensorNameMap.mappings_cfg, tables.TensorNameMap.block_mappings_cfg):
        for tensor, templates in mapping.items():
            for template in templates:
                known.setdefault(_plain(template), {})[constants.TENSOR_NAMES[tensor]] = frequency[tensor]
    found = {}
    for key, words in known.items():
        first, *others = sorted(words, key=lambda word: -words[word])
        if not others or words[first] > words[others[0]]:
            found[key] = first
    return found


def _templates(role: str, layer: str | None) -> list[str]:
    """What architectures call a weight that llama.cpp calls so."""
    constants, tables = _package()
    wanted = f"blk.{{bid}}.{role}" if layer is not None else role
    tensors = [tensor for tensor, name in constants.TENSOR_NAMES.items() if name == wanted]
    mappings = {**tables.TensorNameMap.mappings_cfg, **tables.TensorNameMap.block_mappings_cfg}
    return [template.replace("{bid}", layer or "") for tensor in tensors for template in mappings.get(tensor, ())]


def _package() -> tuple[ModuleType, ModuleType]:
    try:
        return importlib.import_module("gguf.constants"), importlib.import_module("gguf.tensor_mapping")
    except ImportError:
        raise MissingExtra("gguf", EXTRA, "llama.cpp's names of weights") from None
