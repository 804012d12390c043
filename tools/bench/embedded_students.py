"""The students of `embedded.py`: made from a bundle, then quantized in both forms, everything kept for the next time.

A student is distilled from its teacher's bundle. Quantizing wants records of the student, so it is published as a
bundle of its own, recorded on the synthetic inputs that it was made with: still nobody looks at data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from seeds_teachers import TEACHERS, Teacher, graph_of

from dfmeta import pipeline
from dfmeta.bundle import write_file
from dfmeta.graph import Graph

SYNTHETIC = 2560


@dataclass(frozen=True)
class Network:
    """One student.

    Attributes:
        teacher: of :data:`seeds_teachers.TEACHERS`.
        student: of the catalogue.
        site: at whose spectrum the method draws its inputs.
        training: settings of the training, as text.
        synthesis: settings of the method, as text, where making inputs is slow: the student is then trained on those
            that were kept. Without, it is trained on ever new ones, which is better.
    """

    teacher: str
    student: str
    site: str
    training: Mapping[str, str]
    synthesis: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Teacher:
        """Where its images are."""
        return TEACHERS[self.teacher]


_CIFAR_TRAINING = {"steps": "2000", "batch": "128", "shift": "0.125", "flip": "true"}
NETWORKS: Mapping[str, Network] = {
    "lenet": Network("lenet5", "lenet5-half", "input", {"steps": "2000"}),
    "resnet8": Network("resnet20", "resnet8", "image", _CIFAR_TRAINING, {"inputs": str(SYNTHETIC)}),
}


@dataclass(frozen=True)
class Student:
    """The files of one student, each for a batch of 1.

    Attributes:
        float32, qdq, qoperator: ONNX files.
        bundle: its own.
    """

    float32: Path
    qdq: Path
    qoperator: Path
    bundle: Path


def student(name: str, shared: Path, folder: Path, bundle: Path | None, steps: int | None) -> Student:
    """Make what is not there yet.

    Args:
        name: of :data:`NETWORKS`.
        shared: folder of ``data/`` and ``models/``.
        folder: where everything is kept.
        bundle: of the teacher; recorded here without one.
        steps: of the training, in place of the network's own.
    """
    network = NETWORKS[name]
    folder.mkdir(parents=True, exist_ok=True)
    free, own = folder / "student.onnx", folder / "student-bundle"
    inputs = folder / "synthetic.safetensors"
    if not own.exists():
        source = bundle or _recorded(network, shared, folder / "teacher-bundle")
        if not inputs.exists():
            pipeline.reconstruct(source, inputs, count=SYNTHETIC, settings=network.synthesis)
        if not free.exists():
            given = dict(network.training) | ({"steps": str(steps)} if steps else {})
            kept = str(inputs) if network.synthesis else None
            config = pipeline.training_config(pipeline.method_name(source, None, kept), given)
            pipeline.distill(source, free, student=network.student, data=kept, config=config, dynamic_batch=True)
        settings = {"presets": ("calibration",), "by_class": False}
        pipeline.record(Graph.from_file(free), str(inputs), own, **settings)  # type: ignore[arg-type]
    files = Student(folder / "float32.onnx", folder / "qdq.onnx", folder / "qoperator.onnx", own)
    if not files.float32.exists():
        write_file(files.float32, of_one(free))
    for form, path in (("qdq", files.qdq), ("qoperator", files.qoperator)):
        if not path.exists():
            whole = folder / f"{form}-free.onnx"
            whole.unlink(missing_ok=True)
            pipeline.quantize(own, whole, form=form)  # type: ignore[arg-type]
            write_file(path, of_one(whole))
    return files


def _recorded(network: Network, shared: Path, out: Path) -> Path:
    if not out.exists():
        graph = graph_of(network.teacher, shared, out.parent / "teachers", "cpu")
        pipeline.record(
            graph,
            f"{shared / network.data.data}:train",
            out,
            presets=("all-layers", f"spectral@{network.site}", "calibration"),
            preprocessing=network.data.preprocessing,
            rank=64,
        )
    return out


def of_one(path: Path) -> bytes:
    """A model whose free batch is 1 from now on, as devices want it."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    return Graph.from_bytes(model.SerializeToString(deterministic=True), str(path)).raw
