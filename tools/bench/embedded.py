"""Students as integers where they would run: onnxruntime, OpenVINO, C on this machine and on emulated Cortex-M.

    python tools/bench/embedded.py --shared FOLDER --out FOLDER [--only lenet] [--teacher lenet=BUNDLE] [--steps N]

``--shared`` holds ``data/`` and ``models/``. Each student is made from its teacher's bundle without data (once, and
kept in ``--out``), then quantized in two forms: QDQ runs in onnxruntime and OpenVINO, QOperator in onnxruntime and as C
that emx-onnx-cgen writes, compiled by gcc for this machine, and by gcc-arm-none-eabi for a Cortex-M4 and a Cortex-M3
that qemu-system-arm emulates. Each is compared with its own file run node by node in onnxruntime, on real test images.

Needs the packages emx-onnx-cgen and openvino, and of Debian gcc-arm-none-eabi, libnewlib-arm-none-eabi and
qemu-system-arm. ``embedded.json`` and ``embedded.md`` in ``--out`` hold what was found. Exit 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from embedded_boards import BOARDS, build_for_board, execute
from embedded_c import Floats, Generated, build_for_host, generate
from embedded_compare import Agreement, agreement, output_step, predicted
from embedded_report import markdown, misses
from embedded_runtimes import OpenVino, in_onnxruntime
from embedded_students import NETWORKS, Student, student
from numpy.typing import NDArray
from seeds_teachers import images_of

from dfmeta.export import targets
from dfmeta.graph import Graph, costs

# Steps of the logits: OpenVINO has kernels of its own, and adds and rounds in another order.
ALLOWED, ALLOWED_OPENVINO = 1, 2

Labels = NDArray[np.integer[Any]]


class Images:
    """Real test images in an order of their own, so that the first ones are of all classes.

    Attributes:
        inputs: ``[n, ...]``.
        labels: ``[n]``.
    """

    def __init__(self, name: str, shared: Path, limit: int | None) -> None:
        inputs, labels = images_of(NETWORKS[name].data, shared, "test")
        order = np.random.default_rng(0).permutation(len(inputs))[:limit]
        self.inputs: Floats = inputs.numpy()[order]
        self.labels: Labels = labels.numpy()[order]

    def accuracy(self, outputs: Floats) -> dict[str, float | int]:
        """Of as many images as there are outputs: percent, and how many."""
        right = outputs.argmax(1) == self.labels[: len(outputs)]
        return {"accuracy": 100 * float(right.mean()), "images": len(outputs)}


def measure(name: str, files: Student, images: Images, few: int, on_board: int) -> dict[str, Any]:
    """Everything about one student.

    Args:
        name: of it.
        files: of it.
        images: real ones.
        few: how many all runtimes are compared on.
        on_board: how many the emulated boards are given.
    """
    step, openvino = output_step(files.qoperator), OpenVino(files.qdq)
    as_file = {form: in_onnxruntime(path, images.inputs[:few], optimised=False) for form, path in _forms(files).items()}
    rows, accuracy = _in_runtimes(files, images, as_file, step, openvino)
    with tempfile.TemporaryDirectory() as folder:
        generated = generate(files.qoperator, Path(folder))
        outputs = build_for_host(generated, Path(folder))(images.inputs)
        rows["QOperator, C on this machine"] = agreement(outputs[:few], as_file["qoperator"], step, ALLOWED)
        accuracy["QOperator, C on this machine"] = images.accuracy(outputs)
        boards = _on_boards(generated, images, outputs, as_file["qoperator"], step, on_board, Path(folder))
    for board in BOARDS:
        expected = predicted(files.qoperator, soft_float=board.soft_float)
        boards[board.name]["predicted"] = {
            "stack": expected.temporaries_bytes,
            "constants": expected.constant_bytes,
            "code": expected.code_bytes,
            "flash": expected.flash_bytes,
        }
    for core, found in boards.items():
        rows[f"QOperator, C on {core}"] = found.pop("agreement")
        accuracy[f"QOperator, C on {core}"] = found.pop("accuracy")
    cost = costs(Graph.from_file(files.float32))
    return {
        "student": NETWORKS[name].student,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "bytes": {path.stem: path.stat().st_size for path in (files.float32, files.qdq, files.qoperator)},
        "step": step,
        "violations": _violations(files),
        "integer_kernels_of_openvino": openvino.integer_kernels(),
        "agreement": {row: _told(one) for row, one in rows.items()},
        "boards": boards,
        "accuracy": accuracy,
    }


def _in_runtimes(
    files: Student, images: Images, as_file: Mapping[str, Floats], step: float, openvino: OpenVino
) -> tuple[dict[str, Agreement], dict[str, dict[str, float | int]]]:
    """What reads ONNX itself: beside each file run node by node, and accuracy."""
    found = {
        "float32, onnxruntime": in_onnxruntime(files.float32, images.inputs),
        "QDQ, onnxruntime": in_onnxruntime(files.qdq, images.inputs),
        "QDQ, OpenVINO": openvino(images.inputs),
        "QOperator, onnxruntime": in_onnxruntime(files.qoperator, images.inputs),
    }
    compared = (
        ("QDQ, onnxruntime", "qdq", ALLOWED),
        ("QDQ, OpenVINO", "qdq", ALLOWED_OPENVINO),
        ("QOperator, onnxruntime", "qoperator", ALLOWED),
    )
    rows = {
        row: agreement(found[row][: len(as_file[form])], as_file[form], step, allowed)
        for row, form, allowed in compared
    }
    return rows, {row: images.accuracy(outputs) for row, outputs in found.items()}


def _violations(files: Student) -> list[str]:
    """What the checks against the targets say that the two forms are for."""
    wanted = {"onnxruntime-int8": files.qdq, "openvino-int8": files.qdq, "c-codegen": files.qoperator}
    checked = {name: targets.check(Graph.from_file(path), name) for name, path in wanted.items()}
    return [f"{name}: {violation}" for name, one in checked.items() for violation in one.violations]


def _forms(files: Student) -> dict[str, Path]:
    return {"qdq": files.qdq, "qoperator": files.qoperator}


def _told(one: Agreement) -> dict[str, Any]:
    return asdict(one) | {"holds": one.holds}


def _on_boards(
    generated: Generated,
    images: Images,
    on_host: Floats,
    as_file: Floats,
    step: float,
    count: int,
    folder: Path,
) -> dict[str, dict[str, Any]]:
    """Core to what it computed and needed."""
    found = {}
    for board in BOARDS:
        built = build_for_board(generated, board, folder)
        started = time.monotonic()
        ran = execute(built, images.inputs[:count], folder / board.name)
        few = min(len(as_file), count)
        found[board.name] = {
            "machine": board.machine,
            "agreement": agreement(ran.outputs[:few], as_file[:few], step, ALLOWED),
            "accuracy": images.accuracy(ran.outputs),
            "same_as_host": bool((ran.outputs == on_host[:count]).all()),
            "flash": built.flash,
            "data": built.data,
            "code": built.flash - built.data,
            "stack": ran.stack,
            "instructions": int(np.median(ran.instructions)),
            "least": int(ran.instructions.min()),
            "most": int(ran.instructions.max()),
            "seconds": time.monotonic() - started,
        }
    return found


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", required=True, type=Path, help="folder of data/ and models/")
    parser.add_argument("--out", required=True, type=Path, help="folder of students, figures and tables")
    parser.add_argument("--only", default=",".join(NETWORKS), help="students, separated by commas")
    parser.add_argument(
        "--teacher", action="append", default=[], metavar="NAME=BUNDLE", help="in place of recording it"
    )
    parser.add_argument("--steps", type=int, help="of the training of each student")
    parser.add_argument("--images", type=int, help="test images that accuracy is of; all without it")
    parser.add_argument("--compared", type=int, default=100, help="test images on which runtimes are compared")
    parser.add_argument("--on-board", type=int, default=100, help="test images that each emulated board is given")
    options = parser.parse_args()
    teachers = dict(one.split("=", 1) for one in options.teacher)
    options.out.mkdir(parents=True, exist_ok=True)
    place = options.out / "embedded.json"
    document: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
    for name in options.only.split(","):
        bundle = Path(teachers[name]) if name in teachers else None
        files = student(name, options.shared, options.out / name, bundle, options.steps)
        images = Images(name, options.shared, options.images)
        document[name] = measure(name, files, images, options.compared, options.on_board)
        place.write_text(json.dumps(document, indent=1) + "\n")
    table = markdown(document)
    (options.out / "embedded.md").write_text(table)
    print(table)
    missed = misses(document)
    print("\n".join(missed), file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
