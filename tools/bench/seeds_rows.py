"""What `seeds.py` compares: pairs of teacher and student, and the methods that make the student's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pair:
    """A teacher and a student.

    Attributes:
        teacher: a name of :data:`seeds_teachers.TEACHERS`.
        student: what ``--student`` takes.
        cifar: natural images: each row gets the same wall-clock budget for its student, and images are mirrored.
        gpu: only where there is one.
    """

    teacher: str
    student: str
    cifar: bool = False
    gpu: bool = False


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        method: what ``--method`` takes; empty for the default, by the bundle's records.
        presets: what the bundle that it is given was recorded with; nothing at all for methods of the weights alone.
        settings: of the method, where two cores cannot afford the paper's.
        train: of the student's training, likewise.
        data: ``train`` for the real data, ``other`` for the alternative set.
        published: accuracy in percent by pair.
        student: by pair, another way to a network of the same size than the pair's: from the teacher.
        only: pairs it is for; all of them when empty.
        rank: eigenvectors a class, where a spectrum is recorded.
        hidden: whether records of the input site are left out.
        rho: zCDP budget of the records' noise; 0 for none.
    """

    method: str
    presets: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    train: Mapping[str, str] = field(default_factory=dict)
    data: str | None = None
    published: Mapping[str, float] = field(default_factory=dict)
    student: Mapping[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    rank: int = 64
    hidden: bool = False
    rho: float = 0.0


# `fc1=7x11` is the option that KegNet calls its first: the last convolution alone, 3.62 times smaller.
PAIRS: Mapping[str, Pair] = {
    "lenet5-half-lopes": Pair("lenet5", "lenet5-half-lopes"),
    "lenet5-half": Pair("lenet5", "lenet5-half"),
    "hinton-800": Pair("hinton-1200", "hinton-800"),
    "lenet5-tucker": Pair("lenet5", "tucker:fc1=7x11"),
    "alexnet-half": Pair("alexnet", "alexnet-half", cifar=True),
    "resnet8": Pair("resnet20", "resnet8", cifar=True),
    "resnet20-scaled": Pair("resnet20", "scaled:0.5", cifar=True),
    "resnet18": Pair("resnet34", "resnet18", cifar=True, gpu=True),
}

_MNIST = ("lenet5-half-lopes", "lenet5-half", "hinton-800")
_SPECTRAL = ("all-layers", "spectral")
_EVERYTHING = ("all-layers", "spectral", "calibration")
# The flagship's students: the same sizes, but made from the teacher.
_FROM_TEACHER = {"lenet5-half": "scaled:0.5", "hinton-800": "scaled:2/3", "alexnet-half": "scaled:0.5"}
_OURS = {"steps": "2000", "lr": "0.002", "hints": "5"}
# Without records of the input, the inputs are worse than the student's first weights deserve.
_GENTLY = {"steps": "1000", "lr": "0.0005", "hints": "5"}
# The papers' schedules take hours on two cores: what two cores can afford is printed beside each figure.
_GENERATOR = {"width": "32", "batch": "128"}

ROWS: Mapping[str, Row] = {
    "real data": Row("data", data="train"),
    "alternative data": Row("alternative", data="other", published={"lenet5-half": 94.56, "hinton-800": 93.99}),
    "noise": Row("noise", published={"lenet5-half": 88.01, "hinton-800": 87.58}),
    "noise-bn": Row("noise-bn", only=("resnet8", "resnet20-scaled", "alexnet-half", "resnet18")),
    "lopes:top-layer": Row(
        "lopes:top-layer", ("top-layer",), published={"lenet5-half-lopes": 77.30, "hinton-800": 68.75}, only=_MNIST
    ),
    "lopes:all-layers": Row(
        "lopes:all-layers", ("all-layers",), published={"lenet5-half-lopes": 85.61, "hinton-800": 76.38}, only=_MNIST
    ),
    "lopes:all-layers-dropout": Row("lopes:all-layers-dropout", ("all-layers",), only=_MNIST),
    "lopes:spectral": Row(
        "lopes:spectral", _SPECTRAL, published={"lenet5-half-lopes": 90.28, "hinton-800": 89.41}, only=_MNIST
    ),
    "lopes:spectral-pairs": Row(
        "lopes:spectral-pairs",
        (*_SPECTRAL, "spectral-pairs"),
        published={"lenet5-half-lopes": 90.28, "hinton-800": 91.24},
        only=_MNIST,
    ),
    "zskd": Row(
        "zskd",
        settings={"images": "2000", "iterations": "300", "lr": "0.01"},
        train={"steps": "4000"},
        published={"lenet5-half-lopes": 98.77},
    ),
    "dafl": Row(
        "dafl",
        settings={**_GENERATOR, "lr": "0.02"},
        train={"steps": "5000", "batch": "128"},
        published={"lenet5-half": 98.20, "hinton-800": 97.91, "resnet18": 92.22},
    ),
    "dafl-conditional": Row(
        "dafl-conditional", settings={**_GENERATOR, "lr": "0.02"}, train={"steps": "5000", "batch": "128"}
    ),
    "dfad": Row(
        "dfad",
        settings=_GENERATOR,
        train={"steps": "8000", "batch": "128", "optimizer": "adam", "lr": "0.002"},
        published={"lenet5-half": 98.3},
    ),
    "kegnet": Row(
        "kegnet",
        settings={"generators": "3", "iterations": "250", "batch": "128"},
        train={"steps": "1500", "lr": "0.001"},
        published={"lenet5-tucker": 96.32},
        only=("lenet5-tucker", "lenet5-half"),
    ),
    "deepinversion": Row(
        "deepinversion",
        ("all-layers",),
        settings={"images": "4096", "iterations": "200"},
        train={"steps": "3000", "batch": "128"},
    ),
    "class-subspace": Row("class-subspace", _EVERYTHING, train={"steps": "2000"}),
    "matched-generator": Row("matched-generator", _EVERYTHING, train={"steps": "2000"}),
    "flagship": Row("", _EVERYTHING, student=_FROM_TEACHER),
    "flagship without the input": Row("", _EVERYTHING, train=_GENTLY, hidden=True, student=_FROM_TEACHER),
    "flagship's training on real data": Row("data", _EVERYTHING, train=_OURS, data="train", student=_FROM_TEACHER),
}

# The default method, given more and more; the student comes from the teacher, and its records.
METADATA: Mapping[str, Row] = {
    "the weights alone": Row("dafl", settings={**_GENERATOR, "lr": "0.02"}, train={"steps": "3000", "batch": "128"}),
    "+ top-layer": Row("", ("top-layer",), train=_GENTLY, student=_FROM_TEACHER),
    "+ all-layers": Row("", ("top-layer", "all-layers"), train=_GENTLY, student=_FROM_TEACHER),
    "+ calibration": Row("", ("all-layers", "calibration"), train=_GENTLY, student=_FROM_TEACHER, hidden=True),
    "+ spectral, hidden sites, rank 8": Row("", _EVERYTHING, train=_GENTLY, rank=8, hidden=True, student=_FROM_TEACHER),
    "+ spectral, with the input, rank 8": Row("", _EVERYTHING, rank=8, student=_FROM_TEACHER),
    "+ spectral, with the input, rank 32": Row("", _EVERYTHING, rank=32, student=_FROM_TEACHER),
    "+ spectral, with the input, rank 64": Row("", _EVERYTHING, rank=64, student=_FROM_TEACHER),
    "+ spectral-pairs": Row("", (*_EVERYTHING, "spectral-pairs"), student=_FROM_TEACHER),
    "class statistics at DP rho = 0.1": Row("", _EVERYTHING, rho=0.1, student=_FROM_TEACHER),
}
