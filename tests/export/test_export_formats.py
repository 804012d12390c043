"""Files for other tools: the tools read them as what they say."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorData, TensorsData, load_tensors_data, save_tensors_data

from dfmeta.errors import ExportError
from dfmeta.export.aimet_encodings import aimet_encodings
from dfmeta.export.imatrix import Importance, dat_bytes, gguf_bytes
from dfmeta.export.ort_calibration import calibration_cache
from dfmeta.export.quantized import QuantizedValue, QuantizedWeight
from dfmeta.records.imatrix_files import read_imatrix

RANGES = {"b": (-1.25, 3.0), "a": (0.0, 0.1)}
SQUARES = np.random.default_rng(0).random(5)
ENTRIES = (Importance("w", 70, SQUARES, np.sqrt(SQUARES) / 2), Importance("v", 3, SQUARES[:2], None))


def test_the_cache_is_what_onnxruntime_writes_itself(tmp_path: Path) -> None:
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in RANGES.items()}
    ours, theirs, again = (tmp_path / f"{name}.json" for name in ("ours", "theirs", "again"))
    ours.write_bytes(calibration_cache(RANGES))
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), theirs)
    loaded = load_tensors_data(ours)
    assert loaded.calibration_method is CalibrationMethod.MinMax
    for name, (low, high) in RANGES.items():
        found = loaded[name].range_value
        assert [(end.dtype, end.shape) for end in found] == [(np.float32, ())] * 2
        assert [float(end) for end in found] == [np.float32(low), np.float32(high)]
    assert json.loads(ours.read_text()).keys() == json.loads(theirs.read_text()).keys()
    save_tensors_data(loaded, again)
    assert json.loads(again.read_text()) == json.loads(ours.read_text())


@pytest.mark.parametrize(
    ("ranges", "said"),
    [({}, "no ranges"), ({"a": (1, 0)}, "1 to 0"), ({"a": (0, np.nan)}, "nan"), ({"a": (0, 1e39)}, "finite ends")],
)
def test_ranges_that_are_none(ranges: dict[str, tuple[float, float]], said: str) -> None:
    with pytest.raises(ExportError, match=said):
        calibration_cache(ranges)


def test_the_gguf_package_reads_the_importance_matrix(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_bytes(ENTRIES, ["one", "zwei ü"], 14, 5))
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items() if "." in name and "GGUF" not in name}
    assert keys == {
        gguf.Keys.General.TYPE: gguf.GGUFType.IMATRIX,
        gguf.Keys.IMatrix.DATASETS: ["one", "zwei ü"],
        gguf.Keys.IMatrix.CHUNK_COUNT: 14,
        gguf.Keys.IMatrix.CHUNK_SIZE: 5,
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert sorted(tensors) == ["v.counts", "v.in_sum2", "w.counts", "w.in_sum", "w.in_sum2"]
    assert {tensor.tensor_type for tensor in reader.tensors} == {gguf.GGMLQuantizationType.F32}
    assert tensors["w.in_sum2"].shape.tolist() == [5, 1]
    np.testing.assert_allclose(tensors["w.in_sum2"].data, 70 * SQUARES[None], rtol=1e-6)
    np.testing.assert_allclose(tensors["w.in_sum"].data, 35 * np.sqrt(SQUARES)[None], rtol=1e-6)
    assert tensors["v.counts"].data.tolist() == [[3]]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for name, raw in (("a.gguf", gguf_bytes(ENTRIES, ["d"], 14, 5)), ("a.dat", dat_bytes(ENTRIES, ["d"], 14))):
        (tmp_path / name).write_bytes(raw)
        file = read_imatrix([tmp_path / name])
        assert (file.units, file.sources) == (14, ("d",))
        found = {moment.name: moment for moment in file.moments}
        for entry in ENTRIES:
            np.testing.assert_allclose(found[entry.name].diagonal, entry.squares, rtol=1e-6)
        assert (found["w"].mean is None) == (name == "a.dat")
    assert gguf_bytes(ENTRIES[::-1], ["d"], 14, 5) == gguf_bytes(ENTRIES, ["d"], 14, 5)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ((ENTRIES[0], ENTRIES[0]), "two weights called 'w'"),
        ((Importance("w" * 60, 1, SQUARES, None),), "of 60 bytes, expected at most 55"),
        ((Importance("w", 2**50, SQUARES * 1e30, None),), "beyond float32"),
    ],
)
def test_entries_that_cannot_be_written(entries: tuple[Importance, ...], said: str) -> None:
    with pytest.raises(ExportError, match=said):
        gguf_bytes(entries, [], 1, 1)


@pytest.mark.parametrize(
    ("dtype", "zero"), [("uint8", 0), ("uint8", 7), ("uint8", 255), ("int8", 0), ("uint4", 3), ("int4", 0)]
)
def test_an_encoding_rounds_values_as_the_integers_do(dtype: str, zero: int) -> None:
    (found,) = json.loads(aimet_encodings([QuantizedValue("x", 0.037, zero, dtype)], ()))["activation_encodings"]
    bits = int(dtype[-1])
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if dtype.startswith("int") else (0, (1 << bits) - 1)
    x = np.random.default_rng(0).normal(0, 3, 1000)
    ours = (np.clip(np.rint(x / 0.037) + zero, low, high) - zero) * 0.037
    (scale,), (offset,) = found["scale"], found["offset"]
    theirs = (np.clip(np.rint(x / scale) - offset, 0, 2 ** found["bw"] - 1) + offset) * scale
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert (found["name"], found["enc_type"], found["dtype"]) == ("x", "PER_TENSOR", "INT")
    assert found["is_sym"] == dtype.startswith("int")


def test_weights_have_a_scale_for_each_channel() -> None:
    scales = np.array([0.1, 0.5], np.float32)
    weight = QuantizedWeight("w", np.array([[-7, 3], [1, 7]], np.int8), scales, 0, 4)
    document = json.loads(aimet_encodings((), [weight]))
    (found,) = document["param_encodings"]
    assert document.keys() == {"version", "activation_encodings", "param_encodings", "excluded_layers"}
    assert (document["version"], found["enc_type"], found["bw"], found["is_sym"]) == ("1.0.0", "PER_CHANNEL", 4, True)
    values = weight.codes * scales[:, None].astype(np.float64)
    scale, offset = (np.array(found[key])[:, None] for key in ("scale", "offset"))
    again = (np.clip(np.rint(values / scale) - offset, 0, 15) + offset) * scale
    np.testing.assert_allclose(again, values, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_scales_that_are_none(scale: float) -> None:
    with pytest.raises(ExportError, match="'x': found a scale that is not above 0"):
        aimet_encodings([QuantizedValue("x", scale, 0, "uint8")], ())
    with pytest.raises(ExportError, match="no value and no weight"):
        aimet_encodings((), ())
