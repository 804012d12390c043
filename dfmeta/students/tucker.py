"""The teacher's own graph with its convolutions decomposed: ``tucker:auto``, or layer by layer.

Each k x k convolution becomes 1x1 -> k x k -> 1x1 by Tucker-2 of its kernel, with the ranks that EVBMF finds in its
two unfoldings. Source: Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
Applications", arXiv:1511.06530; as a student of data-free distillation: Yoo et al., "Knowledge Extraction with No
Observable Data", NeurIPS 2019.

``tucker:auto`` takes every convolution of all channels at once, and every dense layer on a flattened map, which is the
convolution of the whole map, except where that saves no weights, where EVBMF finds nothing above the noise, and in the
layer that gives the graph's output. Otherwise the variant names layers, ``tucker:conv2=auto,conv3=5x8``: by the node's
name, its weight's or its output's; with ranks of the input and the output side (``5x8``), with ``auto``, or for a
dense layer with one rank (``20``), which is a truncated singular value decomposition. Other layers then stay as they
are.

On LeNet-5 (61,706 parameters) those authors reach 3.62x, 4.10x and 4.49x. They state only the last convolution's ranks
of the third, 5x8; counting weights, ``conv3=7x11`` gives the first, ``conv2=3x4`` with it the second, and with
``conv3=5x8`` the third. A dense layer in place of conv3 gives the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from dfmeta.errors import StepError
from dfmeta.graph import Graph, TorchGraph
from dfmeta.numerics.tucker import limits, tucker2_ranks
from dfmeta.numerics.vbmf import evbmf
from dfmeta.students._origin import Origin
from dfmeta.students._tucker_layers import Layer, layers
from dfmeta.students._tucker_rewrite import Ranks, parameters, rewritten

AUTO = "auto"
EXAMPLE = "tucker:auto"


def derive(origin: Origin, variant: str, generator: torch.Generator) -> nn.Module:
    """The decomposed teacher, trainable; nothing about it is random.

    Args:
        origin: the teacher; its records are not looked at.
        variant: ``auto``, or ``layer=auto``, ``layer=<in>x<out>`` and ``layer=<rank>``, with commas between.
        generator: not drawn from.

    Raises:
        StepError: a variant of another form, a layer that is not there, ranks that it cannot have, or nothing that
            automatic ranks would make smaller.
    """
    del generator
    return TorchGraph(decomposed(origin.graph, variant), trainable=True, batch_norm="train")


def decomposed(graph: Graph, variant: str) -> Graph:
    """The same as a graph; arguments and errors of :func:`derive`."""
    where = f"student 'tucker:{variant}'"
    known = layers(graph)
    chosen = _automatic(known, where) if variant == AUTO else _named(known, variant, where)
    return rewritten(graph, chosen)


def _automatic(known: Iterable[Layer], where: str) -> list[tuple[Layer, Ranks]]:
    found = [(layer, _found_ranks(layer)) for layer in known if layer.spatial and not layer.last]
    chosen = [(layer, ranks) for layer, ranks in found if min(ranks) and parameters(layer, ranks) < layer.weight.size]
    if not chosen:
        raise StepError(
            where,
            "no convolution whose automatic ranks make it smaller",
            "one or more",
            "Name a layer and its ranks, such as tucker:conv2=3x4, or take another student.",
        )
    return chosen


def _named(known: Iterable[Layer], variant: str, where: str) -> list[tuple[Layer, Ranks]]:
    by_name = {name: layer for layer in known for name in layer.names}
    chosen: dict[int, tuple[Layer, Ranks]] = {}
    for part in variant.split(","):
        # A name may hold any sign, the equals sign too.
        name, equals, text = part.rpartition("=")
        if not equals:
            raise StepError(
                where, f"{part!r}", "auto, or layer=ranks with commas between", "Such as conv2=auto,conv3=5x8."
            )
        layer = _layer(by_name, name, where)
        if layer.index in chosen:
            raise StepError(where, f"layer {name!r} a second time", "each layer once")
        chosen[layer.index] = layer, _ranks(layer, text, f"{where}, layer {name!r}")
    return list(chosen.values())


def _layer(by_name: Mapping[str, Layer], name: str, where: str) -> Layer:
    if name in by_name:
        return by_name[name]
    known = ", ".join(dict.fromkeys(layer.name for layer in by_name.values())) or "(none)"
    raise StepError(where, f"no layer {name!r} that can be decomposed", f"one of {known}")


def _ranks(layer: Layer, text: str, where: str) -> Ranks:
    if text == AUTO:
        return _worthwhile(layer, where)
    if not re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})?", text):
        raise StepError(where, f"ranks {text!r}", "auto, <in>x<out>, or one rank for a dense layer")
    ranks = tuple(int(number) for number in text.split("x"))
    most = _limits(layer, len(ranks))
    if not most:
        form = "<in>x<out>" if layer.weight.ndim > 2 else "one rank, for it is a dense layer that sees no map"
        raise StepError(where, f"ranks {text!r}", form)
    if any(not 1 <= rank <= limit for rank, limit in zip(ranks, most, strict=True)):
        raise StepError(where, f"ranks {text!r}", f"1 to {'x'.join(map(str, most))}")
    return ranks


def _limits(layer: Layer, count: int) -> Ranks:
    """The largest ranks of that many sides; empty where the layer cannot be decomposed so."""
    if count == 2:
        return limits(layer.weight.shape)[::-1] if layer.spatial else ()
    dense = layer.map or layer.weight.ndim == 2
    return (min(len(layer.weight), layer.weight.size // len(layer.weight)),) if dense else ()


def _worthwhile(layer: Layer, where: str) -> Ranks:
    ranks = _found_ranks(layer)
    if min(ranks) and parameters(layer, ranks) < layer.weight.size:
        return ranks
    found = f"automatic ranks {'x'.join(map(str, ranks))}"
    saved = "nothing above the noise" if not min(ranks) else "no fewer weights"
    raise StepError(where, f"{found}, which leave {saved}", "ranks that make it smaller", "Give ranks of your own.")


def _found_ranks(layer: Layer) -> Ranks:
    """Of the input and the output side, or the one of a dense layer that sees no map."""
    if layer.spatial:
        return tucker2_ranks(layer.weight)[::-1]
    return (evbmf(layer.weight).rank,)
