"""The publisher's model: an ONNX file, or their own torch module exported once and checked."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from dfmeta.errors import DataError, GraphError
from dfmeta.graph import Graph
from dfmeta.graph.export_torch import export_module


def load_model(model: str, *, weights: str | Path | None = None, example: np.ndarray | None = None) -> Graph:
    """The graph that will ship.

    Args:
        model: an ONNX file, or ``module:callable`` of the publisher's own code that returns an ``nn.Module``.
        weights: safetensors file with the module's state dict.
        example: ``[n, ...]`` preprocessed input that fixes the exported shapes; needed for a module.

    Raises:
        GraphError: a file that the gate refuses, or weights that do not fit the module.
        DataError: a name that gives no module, or weights beside a file, which holds its own.
        ExportError: the export does not compute what the module computes.
    """
    if ":" not in model or Path(model).exists():
        if weights is not None:
            raise DataError("--weights", f"weights for the file {model!r}", "none: it holds its own", "Leave them out.")
        return Graph.from_file(model)
    module = _build(model)
    if weights is not None:
        _load(module, Path(weights))
    if example is None:
        raise GraphError(model, "no example input", "one, to fix the shapes of the export")
    first = torch.from_numpy(np.ascontiguousarray(example[:1]))
    return export_module(
        module.eval(),
        (first,),
        input_names=["input"],
        output_names=["logits"],
        dynamic_batch=True,
        keep_batchnorm=True,
    )


def _build(model: str) -> nn.Module:
    module_name, _, attribute = model.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
        module = found if isinstance(found, nn.Module) else found()
    except Exception as error:  # the publisher's own code may raise anything
        raise DataError(
            "--model",
            f"{model!r}, which fails ({type(error).__name__}: {error})",
            "module:callable of your own code, which gives an nn.Module",
        ) from error
    if not isinstance(module, nn.Module):
        raise DataError("--model", f"{model!r}, which gives a {type(module).__name__}", "an nn.Module")
    return module


def _load(module: nn.Module, weights: Path) -> None:
    if not weights.is_file():
        raise GraphError(str(weights), "no such file", "a safetensors file", "Check the path.")
    try:
        state = load_file(weights)
    except Exception as error:  # safetensors raises its own private class
        raise GraphError(str(weights), f"no safetensors file ({error})", "the module's state dict") from error
    wanted = set(module.state_dict())
    extra, missing = sorted(set(state) - wanted), sorted(wanted - set(state))
    if extra or missing:
        raise GraphError(
            str(weights),
            f"tensors the module lacks ({_some(extra)}), or none for its own ({_some(missing)})",
            "exactly the module's state dict",
            "Save it with safetensors.torch.save_file(module.state_dict(), path).",
        )
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise GraphError(str(weights), f"shapes that do not fit ({text})", "the module's own") from error


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "") or "none"
