"""Bundles that are changed after they were written, and graphs of other models."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dfmeta.compress.distill import Config
from dfmeta.data import from_flags
from dfmeta.graph import Graph
from dfmeta.pipeline import Distilled, Release, distill, record

FEW = {"iterations": "5", "batch": "100", "inputs": "500"}
Repin = Callable[[Path, Mapping[str, bytes]], None]


@pytest.fixture(scope="session")
def few() -> dict[str, str]:
    """Settings that make the default method quick."""
    return FEW


@pytest.fixture(scope="session")
def distilled(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    """A student of the digits' bundle."""
    out = tmp_path_factory.mktemp("students") / "student.onnx"
    return distill(digits_bundle, out, student="tiny8", config=Config(steps=150, batch=64), settings=FEW, seed=3)


@pytest.fixture(scope="session")
def calibrated(digits_teacher: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the digits' teacher with what a compressor reads. Do not change it: take a copy."""
    out = tmp_path_factory.mktemp("calibrated") / "bundle"
    settings: dict[str, Any] = {"presets": ("calibration",), "preprocessing": from_flags(1 / 255), "by_class": False}
    return record(digits_teacher, "digits:train", out, **settings, release=Release(dataset="the digits")).path


@pytest.fixture
def spoiled(digits_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the digits' bundle, to be damaged."""
    return Path(shutil.copytree(digits_bundle, tmp_path / "spoiled"))


@pytest.fixture(scope="session")
def repin() -> Repin:
    """Write other members, and have the manifest pin what they became: only their meaning gives them away."""

    def write(folder: Path, members: Mapping[str, bytes]) -> None:
        path = folder / "dfmeta.json"
        manifest: dict[str, Any] = json.loads(path.read_text())
        for file in manifest["files"]:
            if file["path"] in members:
                raw = members[file["path"]]
                (folder / file["path"]).write_bytes(raw)
                file |= {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        path.write_text(json.dumps(manifest))

    return write


@pytest.fixture(scope="session")
def linear() -> Callable[..., Graph]:
    """``linear(item_shape, classes)``: one layer from ``x [batch, *item_shape]`` to ``y [batch, *classes]``."""

    def make(item_shape: tuple[int, ...], classes: tuple[int, ...], dtype: str = "float32") -> Graph:
        size, width = int(np.prod(item_shape)), int(np.prod(classes))
        weight = np.random.default_rng(0).normal(0, 0.1, (size, width)).astype(np.float32)
        target = np.asarray([-1, *classes], np.int64)
        graph = helper.make_graph(
            [
                helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT),
                helper.make_node("Flatten", ["c"], ["f"]),
                helper.make_node("Gemm", ["f", "w"], ["g"]),
                helper.make_node("Reshape", ["g", "target"], ["y"]),
            ],
            "g",
            [helper.make_tensor_value_info("x", getattr(TensorProto, TYPES[dtype]), ["batch", *item_shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *classes])],
            [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(target, "target")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.checker.check_model(model)
        return Graph.from_bytes(model.SerializeToString(), "linear.onnx")

    return make


TYPES = {"float32": "FLOAT", "int64": "INT64"}
