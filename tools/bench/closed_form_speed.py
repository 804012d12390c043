"""How long it takes, and how large the sidecar is: the figures of `closed_form.py` that are no accuracy."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import blas, lapack  # type: ignore[import-untyped]

from dfmeta.bundle import Bundle
from dfmeta.compress import quantize
from dfmeta.numerics.gptq import code_range, factorised, rounded
from dfmeta.numerics.rounding_scales import from_largest
from dfmeta.pipeline.quantizing import quantize as quantize_bundle

if TYPE_CHECKING:
    from closed_form_networks import Network

# Columns that plain GPTQ rounds before it brings the others up to date, as the authors' program does.
BLOCK = 128


def measures(network: Network) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every measure of this file that makes sense for a network, by name: it is taken when it is called."""
    found: dict[str, Callable[[], dict[str, Any]]] = {"sidecar": lambda: sidecar(network)}
    if network.name == "resnet20":
        found["seconds to quantize"] = lambda: quantizing(network)
        found["gptq 4096 x 4096"] = gptq
    return found


def sidecar(network: Network) -> dict[str, Any]:
    """Bytes of the records in both sizes, beside the model's."""
    found: dict[str, Any] = {}
    for source in ("full", "toeplitz"):
        files = Bundle.open(network.bundle(source)).manifest.files
        found[f"{source}_bytes"] = sum(file.size for file in files if file.role == "records")
        found["model_bytes"] = sum(file.size for file in files if file.role == "model.graph")
    found["ratio"] = found["toeplitz_bytes"] / found["model_bytes"]
    return found


def quantizing(network: Network) -> dict[str, Any]:
    """The whole verb: bundle opened and verified, step, check in two runtimes, file written."""
    found: dict[str, Any] = {"threads": os.environ.get("OMP_NUM_THREADS", "all"), "load": os.getloadavg()[0]}
    for bits in ("w8a8", "w4", "w4a8"):
        with tempfile.TemporaryDirectory() as folder:
            started, before = time.monotonic(), _cpu()
            quantize_bundle(network.bundle("full"), Path(folder) / "out.onnx", config=quantize.Config(bits))
            found[bits] = {"seconds": time.monotonic() - started, "cpu_seconds": _cpu() - before}
    return found


def gptq(size: int = 4096, rounds: int = 3) -> dict[str, Any]:
    """A layer of ``size`` x ``size`` in 4 bits, beside the paper's algorithm in plain LAPACK and BLAS calls.

    Both are given the moment and scales, and take turns; the ratio is of the least times.
    """
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((size, size))
    samples = generator.standard_normal((2 * size, size)) * np.linspace(0.2, 2, size)
    moment = samples.T @ samples / len(samples)
    limits = code_range(4)
    scales = from_largest(weight, *limits)
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    for _ in range(rounds):
        first = time.perf_counter(), _cpu()
        ours = rounded(weight, factorised(moment), scales, *limits)
        second = time.perf_counter(), _cpu()
        plain = plain_gptq(weight, moment, scales, limits)
        third = time.perf_counter(), _cpu()
        times["ours"].append((second[0] - first[0], second[1] - first[1]))
        times["plain"].append((third[0] - second[0], third[1] - second[1]))
    wall, used = ({name: min(one[which] for one in each) for name, each in times.items()} for which in (0, 1))
    return {
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "seconds": wall,
        "cpu_seconds": used,
        "ratio": wall["ours"] / wall["plain"],
        "cpu_ratio": used["ours"] / used["plain"],
        "same": float((ours == plain).mean()),
    }


def plain_gptq(weight: np.ndarray, moment: np.ndarray, scales: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    """Frantar et al., 2023, algorithm 1: potrf, potri, potrf; a rank-one update a column, a product a block."""
    order = np.argsort(-np.diagonal(moment), kind="stable")
    damped = np.asfortranarray(moment[np.ix_(order, order)])
    damped.flat[:: len(damped) + 1] += 0.01 * np.diagonal(moment).mean()
    lower, _ = lapack.dpotrf(damped, lower=1)
    inverse, _ = lapack.dpotri(lower, lower=1)
    # Only the lower half is written.
    inverse = np.tril(inverse)
    whole = np.asfortranarray(inverse + np.tril(inverse, -1).T)
    factor, _ = lapack.dpotrf(whole, lower=0)
    # In units of the scales, outputs along the columns of Fortran's order.
    left = np.asfortranarray(weight[:, order] / scales[:, None])
    codes = np.empty(weight.shape, np.int8)
    for start in range(0, len(order), BLOCK):
        stop = min(start + BLOCK, len(order))
        errors = np.empty((len(weight), stop - start), order="F")
        part = left[:, start:stop]
        for place in range(stop - start):
            column = np.clip(np.rint(part[:, place]), *limits)
            codes[:, order[start + place]] = column
            errors[:, place] = (part[:, place] - column) / factor[start + place, start + place]
            blas.dger(
                -1.0, errors[:, place], factor[start + place, start + place : stop], a=part[:, place:], overwrite_a=1
            )
        if stop < len(order):
            blas.dgemm(-1.0, errors, factor[start:stop, stop:], beta=1.0, c=left[:, stop:], overwrite_c=1)
    return codes


def _cpu() -> float:
    """Seconds that this process computed: on a machine that others use, more telling than the clock."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
