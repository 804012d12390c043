"""Records as files of other tools, through those tools; and files of other tools as bundles."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.calibrate import load_tensors_data
from onnxruntime.quantization.shape_inference import quant_pre_process

from dfmeta.bundle import Bundle, validate
from dfmeta.compress.quantize import Config
from dfmeta.compress.value_ranges import value_ranges
from dfmeta.errors import DataError, OutputExists, StepError, UnknownName
from dfmeta.export.ort_calibration import calibration_cache
from dfmeta.graph import Graph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.kinds.second_moment.reading import matrix
from dfmeta.pipeline.converting import convert_to
from dfmeta.pipeline.factorizing import factorize
from dfmeta.pipeline.importing import convert_from
from dfmeta.pipeline.quantizing import quantize
from dfmeta.records import PublishedRecords, Statistic

MINMAX = Config(ranges="minmax")


@pytest.fixture(scope="module")
def prepared(digits_teacher: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher as onnxruntime wants it before it quantizes: BatchNormalization folded."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "model.onnx").write_bytes(digits_teacher.raw)
    quant_pre_process(str(folder / "model.onnx"), str(folder / "prepared.onnx"))
    return folder / "prepared.onnx"


class _Reader(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self.batches: Iterator[np.ndarray] = iter(np.array_split(images, 4))

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}


def quantized(model: Path, out: Path, cache: Path, reader: CalibrationDataReader | None = None) -> onnx.ModelProto:
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            str(model), str(out), reader, per_channel=True, weight_type=QuantType.QInt8, calibration_cache_path=cache
        )
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(out)


def test_the_same_ranges_give_the_same_file_as_real_data(prepared: Path, digits: Any, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.json"
    quantized(prepared, tmp_path / "data.onnx", theirs, _Reader(digits[0].numpy()))
    loaded = load_tensors_data(theirs)
    ranges = {name: tuple(float(np.asarray(end).item()) for end in data.range_value) for name, data in loaded.items()}
    ours = tmp_path / "ours.json"
    ours.write_bytes(calibration_cache(ranges))  # type: ignore[arg-type]
    quantized(prepared, tmp_path / "ranges.onnx", ours)
    assert (tmp_path / "ranges.onnx").read_bytes() == (tmp_path / "data.onnx").read_bytes()


def test_ranges_from_records_are_those_of_the_data_to_a_bin(
    calibrated: Path, prepared: Path, digits: Any, tmp_path: Path
) -> None:
    done = convert_to(calibrated, tmp_path / "ours.json", "ort-calibration", config=MINMAX)
    assert not done.left_out
    ours = quantized(prepared, tmp_path / "ours.onnx", done.path)
    theirs = quantized(prepared, tmp_path / "theirs.onnx", tmp_path / "theirs.json", _Reader(digits[0].numpy()))
    assert [node.op_type for node in ours.graph.node] == [node.op_type for node in theirs.graph.node]
    scales = [
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for model in (ours, theirs)
    ]
    assert scales[0].keys() == scales[1].keys()
    # Bins are 1/16 wide, and those that few units touch are merged inward: the range of the data is not published.
    for name in ("image_scale", "relu_scale", "relu_1_scale", "logits_scale"):
        assert 0.7 < float(scales[0][name]) / float(scales[1][name]) < 17 / 16 + 1e-6, name
    images, labels = digits[0].numpy(), digits[1].numpy()
    accuracy = [
        float((run(tmp_path / f"{name}.onnx", images).argmax(1) == labels).mean()) for name in ("ours", "theirs")
    ]
    assert accuracy[0] > accuracy[1] - 0.01


def run(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"image": images})[0]
    return found


def test_a_model_that_is_not_prepared_finds_its_names_too(
    calibrated: Path, digits_teacher: Graph, tmp_path: Path
) -> None:
    done = convert_to(calibrated, tmp_path / "ours.json", "ort-calibration")
    (tmp_path / "model.onnx").write_bytes(digits_teacher.raw)
    quantized(tmp_path / "model.onnx", tmp_path / "small.onnx", done.path)
    assert any("quantize_static" in note for note in done.notes)
    names = json.loads(done.path.read_text())["data"].keys()
    assert {value.name for value in (*digits_teacher.inputs, *digits_teacher.outputs)} <= names


def test_encodings_are_the_integers_of_quantize(calibrated: Path, tmp_path: Path) -> None:
    config = Config("w4a8", rounding="nearest", bias_correction=False)
    done = convert_to(calibrated, tmp_path / "a.encodings", "aimet-encodings", config=config)
    document = json.loads(done.path.read_text())
    model = onnx.load(quantize(calibrated, tmp_path / "q.onnx", config=config).written.path)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert (done.weights, len(document["param_encodings"])) == (3, 3)
    folded = without_batch_norm(Graph.from_file(calibrated / "model.onnx"))
    for entry in document["param_encodings"]:
        scale = arrays[f"{entry['name']}_scale"]
        np.testing.assert_allclose(entry["scale"], scale)
        # Rounded by the encoding, the folded weight is what the quantized model has.
        weight = np.asarray(folded.initializers[entry["name"]], np.float64)
        shape = [-1] + [1] * (weight.ndim - 1) if weight.shape[0] == len(scale) else [1, -1]
        steps, offset = np.reshape(entry["scale"], shape), np.reshape(entry["offset"], shape)
        codes = np.clip(np.rint(weight / steps) - offset, 0, 2 ** entry["bw"] - 1) + offset
        # Our codes leave the lowest integer out, so that they are symmetric; the encoding has it.
        lowest = 1 - 2 ** (entry["bw"] - 1)
        differs = np.maximum(codes, lowest) != np.maximum(arrays[f"{entry['name']}_codes"].astype(np.int64), lowest)
        # Scales are written as float32: what lies in the middle between two integers may go either way.
        assert (np.abs(np.abs(weight / steps) % 1 - 0.5)[differs] < 1e-4).all(), entry["name"]
        assert differs.mean() < 0.01
    values = {entry["name"]: entry for entry in document["activation_encodings"]}
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantizers) == 3
    for node in quantizers:
        entry = values[node.input[0]]
        assert entry["scale"] == [float(arrays[node.input[1]])]
        assert entry["offset"] == [-int(arrays[node.input[2]])]
    assert any("folded" in note for note in done.notes)
    assert convert_to(calibrated, tmp_path / "w.encodings", "aimet-encodings", config=Config("w4")).values == 0


def moment(bundle: Path, features: int) -> Statistic:
    """The second moment of what has so many features."""
    records = PublishedRecords.read(Bundle.open(bundle))
    return next(one for one in records if one.kind == "second-moment" and one.tensors["mean"].shape[-1] == features)


def test_an_importance_matrix_by_the_gguf_package(calibrated: Path, tmp_path: Path) -> None:
    done = convert_to(calibrated, tmp_path / "i.gguf", "imatrix")
    reader = gguf.GGUFReader(done.path)
    tensors = {tensor.name: np.asarray(tensor.data) for tensor in reader.tensors}
    (name,) = {one.removesuffix(".counts") for one in tensors if one.endswith(".counts")}
    weight = Graph.from_file(calibrated / "model.onnx").initializers[name]
    statistic = moment(calibrated, 64)
    arrays = {key: tensor.numpy() for key, tensor in statistic.tensors.items()}
    whole = matrix(arrays, 64, statistic.configuration).reshape(64, 64)
    rows = int(arrays["count"].min())
    assert 64 in weight.shape
    assert tensors[f"{name}.counts"].tolist() == [[rows]]
    np.testing.assert_allclose(tensors[f"{name}.in_sum2"][0], rows * np.diag(whole), rtol=1e-5)
    np.testing.assert_allclose(tensors[f"{name}.in_sum"][0], rows * arrays["mean"].reshape(-1), rtol=1e-5)
    assert reader.fields["imatrix.datasets"].contents() == ["the digits"]
    assert {one.reason.split()[1] for one in done.left_out} == {"Conv"}


def test_there_and_back_again(calibrated: Path, digits_teacher: Graph, tmp_path: Path) -> None:
    for name, means in (("i.gguf", True), ("i.dat", False)):
        file = convert_to(calibrated, tmp_path / name, "imatrix").path
        done = convert_from([file], tmp_path / f"from {name}", "imatrix", model=digits_teacher)
        assert validate(done.published.path, strict=True).valid
        (statistic,) = PublishedRecords.read(Bundle.open(done.published.path))
        assert statistic.configuration["form"] == done.form == "diagonal"
        assert statistic.configuration.get("mean_observed", True) == means
        before = moment(calibrated, 64)
        arrays = {key: tensor.numpy() for key, tensor in before.tensors.items()}
        expected = np.diag(matrix(arrays, 64, before.configuration).reshape(64, 64))
        np.testing.assert_allclose(statistic.tensors["diagonal"].numpy()[0], expected, rtol=1e-5)
        mean = arrays["mean"].reshape(-1) if means else np.zeros(64)
        np.testing.assert_allclose(statistic.tensors["mean"].numpy()[0], mean, rtol=1e-5, atol=1e-9)
        assert len(done.uncovered) == 2
        assert convert_to(done.published.path, tmp_path / f"again {name}", "imatrix").weights == 1


def flat(rows: torch.Tensor) -> dict[str, Any]:
    """As QuIP#'s script writes what a layer reads."""
    rows = rows.double()
    mu, h = rows.mean(0), rows.T @ rows / len(rows)
    places = torch.tril_indices(len(h), len(h))
    return {"flatH": (h - mu[:, None] * mu)[places.unbind()].float(), "mu": mu.float(), "n": len(h), "ct": len(rows)}


@pytest.fixture(scope="module")
def hessians(digits: Any, digits_network: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of every layer: the convolutions' patches and the rows of the last one."""
    folder = tmp_path_factory.mktemp("hessians")
    with torch.no_grad():
        inner = digits_network[:4](digits[0])
        patches = [torch.nn.functional.unfold(x, 3, padding=1).transpose(1, 2) for x in (digits[0], inner)]
        rows = [*(each.reshape(-1, each.shape[-1]) for each in patches), digits_network[:-1](digits[0])]
    paths = [folder / f"layer {number}.pt" for number in range(3)]
    for path, each in zip(paths, rows, strict=True):
        torch.save(flat(each), path)
    return paths


@pytest.fixture
def names(digits_teacher: Graph, tmp_path: Path) -> Path:
    weights = [name for name, array in digits_teacher.initializers.items() if array.ndim > 1]
    path = tmp_path / "map.json"
    path.write_text(json.dumps({f"layer {number}": name for number, name in enumerate(weights)}))
    return path


def test_published_hessians_serve_as_records_do(
    hessians: list[Path], names: Path, calibrated: Path, digits_teacher: Graph, tmp_path: Path
) -> None:
    done = convert_from(hessians, tmp_path / "b", "flat-hessian", model=digits_teacher, names=str(names))
    assert (done.form, len(done.used), done.left_out, done.uncovered) == ("full", 3, (), ())
    assert validate(done.published.path, strict=True).valid
    ours = {one.value: one for one in PublishedRecords.read(Bundle.open(done.published.path))}
    for theirs in PublishedRecords.read(Bundle.open(calibrated)):
        if theirs.kind != "second-moment":
            continue
        found, size = ours[theirs.value], theirs.tensors["mean"].shape[-1]
        assert int(found.tensors["count"].min()) == int(theirs.tensors["count"].min())
        np.testing.assert_allclose(found.tensors["mean"].reshape(-1), theirs.tensors["mean"].reshape(-1), atol=1e-5)
        pair = [
            matrix({k: t.numpy() for k, t in one.tensors.items()}, size, one.configuration).reshape(size, size)
            for one in (found, theirs)
        ]
        if theirs.configuration["form"] == "full":
            np.testing.assert_allclose(*pair, atol=1e-5 * float(pair[0].max()))
        np.testing.assert_allclose(np.trace(pair[0]), np.trace(pair[1]), rtol=1e-4)
    config = Config("w4", first_last_bits=0)
    layers = quantize(done.published.path, tmp_path / "q.onnx", config=config).layers
    assert {layer.form for layer in layers} == {"full"}
    factors = factorize(done.published.path, tmp_path / "f.onnx")
    assert {one.record for one in factors.operators} == {"full"}
    assert 0 < factors.parameters <= 0.75 * factors.parameters_before


def test_what_fits_nothing_is_named(hessians: list[Path], digits_teacher: Graph, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no entry of a weight of .*layer 0: no weight of the graph has such a name"):
        convert_from(hessians, tmp_path / "b", "flat-hessian", model=digits_teacher)
    weight = next(name for name, array in digits_teacher.initializers.items() if array.ndim == 2)
    (tmp_path / "map.json").write_text(json.dumps({"layer 2": weight}))
    done = convert_from(
        hessians, tmp_path / "b", "flat-hessian", model=digits_teacher, names=str(tmp_path / "map.json")
    )
    assert [(one.name, one.reason) for one in done.left_out] == [
        (f"layer {number}", "the map does not have it") for number in (0, 1)
    ]
    assert len(done.uncovered) == 2


def test_a_map_that_is_wrong_is_an_error(hessians: list[Path], digits_teacher: Graph, tmp_path: Path) -> None:
    weight = next(name for name, array in digits_teacher.initializers.items() if array.ndim == 2)
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"layer 0": weight}))
    with pytest.raises(DataError, match=r"9 features, and .* reads 64"):
        convert_from(hessians, tmp_path / "b", "flat-hessian", model=digits_teacher, names=str(path))
    rows = torch.rand(100, 64)
    torch.save(flat(rows), tmp_path / "other.pt")
    path.write_text(json.dumps({"layer 2": weight, "other": weight}))
    files = [*hessians, tmp_path / "other.pt"]
    with pytest.raises(DataError, match="other numbers than 'layer 2' has"):
        convert_from(files, tmp_path / "b", "flat-hessian", model=digits_teacher, names=str(path))
    path.write_text(json.dumps({"layer 2": "nothing"}))
    with pytest.raises(UnknownName, match="nothing"):
        convert_from(hessians, tmp_path / "b", "flat-hessian", model=digits_teacher, names=str(path))
    assert not (tmp_path / "b").exists()


def test_too_few_units_are_not_published(digits_teacher: Graph, tmp_path: Path) -> None:
    weight = next(name for name, array in digits_teacher.initializers.items() if array.ndim == 2)
    torch.save(flat(torch.rand(9, 64)), tmp_path / f"{weight}.pt")
    with pytest.raises(DataError, match="9 rows, expected at least 10"):
        convert_from([tmp_path / f"{weight}.pt"], tmp_path / "b", "flat-hessian", model=digits_teacher)
    done = convert_from([tmp_path / f"{weight}.pt"], tmp_path / "b", "flat-hessian", model=digits_teacher, min_units=9)
    (statistic,) = PublishedRecords.read(Bundle.open(done.published.path))
    assert (done.form, list(done.used), statistic.tensors["count"].tolist()) == ("full", [weight], [9])


def test_wrong_use(calibrated: Path, digits_bundle: Path, digits_teacher: Graph, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UnknownName, match="ort-calibration"):
        convert_to(calibrated, out, "tensorrt")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="flat-hessian"):
        convert_from([out], out, "npz", model=digits_teacher)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match=r"llama\.cpp"):
        convert_to(calibrated, out, "imatrix", naming="ollama")
    with pytest.raises(DataError, match="Only an imatrix"):
        convert_to(calibrated, out, "ort-calibration", naming="llama.cpp")
    with pytest.raises(DataError, match="files: found none"):
        convert_from([], out, "imatrix", model=digits_teacher)
    with pytest.raises(UnknownName, match="minmax"):
        convert_to(calibrated, out, "ort-calibration", config=Config(ranges="max"))
    with pytest.raises(StepError, match="histograms"):
        convert_to(digits_bundle, out, "ort-calibration")
    with pytest.raises(StepError, match="histograms"):
        convert_to(digits_bundle, out, "aimet-encodings")
    with pytest.raises(StepError, match="second moments"):
        convert_to(digits_bundle, out, "imatrix")
    assert not out.exists()
    out.write_bytes(b"mine")
    with pytest.raises(OutputExists):
        convert_to(calibrated, out, "imatrix")
    with pytest.raises(OutputExists):
        convert_from([out], out, "imatrix", model=digits_teacher)
    assert out.read_bytes() == b"mine"


def test_weights_under_other_names(calibrated: Path, digits_teacher: Graph, tmp_path: Path) -> None:
    weight = next(name for name, array in digits_teacher.initializers.items() if array.ndim == 2)
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"output.weight": weight}))
    done = convert_to(calibrated, tmp_path / "i.gguf", "imatrix", names=str(path))
    assert "output.weight.in_sum2" in {tensor.name for tensor in gguf.GGUFReader(done.path).tensors}
    again = convert_from([done.path], tmp_path / "b", "imatrix", model=digits_teacher, names=str(path))
    assert list(again.used) == ["output.weight"]
    path.write_text(json.dumps({"a": "nothing"}))
    with pytest.raises(UnknownName, match="nothing"):
        convert_to(calibrated, tmp_path / "j.gguf", "imatrix", names=str(path))
    with pytest.raises(StepError, match="none of a matrix product with a name"):
        convert_to(calibrated, tmp_path / "j.gguf", "imatrix", naming="llama.cpp")


def test_every_value_of_the_folded_graph_has_a_range(calibrated: Path, digits_teacher: Graph) -> None:
    folded = without_batch_norm(digits_teacher)
    found = value_ranges(folded, PublishedRecords.read(Bundle.open(calibrated)), "mse")
    assert not found.unknown
    assert {one.origin for one in found.known} == {"recorded", "derived"}
    assert all(one.low <= 0 <= one.high for one in found.known)
