"""The record kinds of version 1: which tensors a record has, and what must hold of their numbers."""

import math
from typing import Any

import numpy as np

from reader.files import LIMITS, Refused, demand
from reader.manifest import Item, members

Array = np.ndarray[Any, Any]
LIMIT = LIMITS["numbers"]
CENTRAL = {"centering": "central", "normalization": "population", "accumulation_dtype": "float64"}
CONVENTIONS = dict.fromkeys(("moments", "spectrum", "cross-spectrum"), CENTRAL) | {
    "histogram": {"binning": "float32-top-13-bits", "accumulation_dtype": "int64"},
    "second-moment": CENTRAL | {"centering": "raw"},
}
CONFIGURATIONS = {
    "spectrum": "rank=1.. sketch?=1..",
    "cross-spectrum": "rank=1.. sketch?=1.. paired_feature_count=1..",
    "second-moment": "form=full|toeplitz|kronecker|diagonal storage=float32|float16|int8 exact?=boolean "
    "mean_observed?=boolean",
}
WINDOW = " kernel=1..65535*1-3 strides=1..65535*1-3 dilations=1..65535*1-3 pads=0..65535*2-6 groups=1..1048576"
LAYOUTS = {  # of a kind, or of a form of second moments: each tensor but `count`, with its dimensions, a letter each
    "moments": "mean=d var=d", "histogram": "bins=b counts=b", "diagonal": "mean=d diagonal=d",
    "spectrum": "mean=d eigenvalues=k eigenvectors=kd residual_trace=",
    "cross-spectrum": "mean=d paired_mean=p singular_values=k left=kd right=kp residual=",
    "full": "mean=d matrix=D", "toeplitz": "mean=d lags=lcc", "kronecker": "mean=d channels=C taps=T",
}  # fmt: skip
DIAGONALS = {"full": " diagonal=d", "toeplitz": " diagonal=c", "kronecker": " channels_diagonal=c taps_diagonal=t"}
STORAGE = {"float32": ("float32", "float64"), "float16": ("float16",), "int8": ("int8",)}
STORED, INTEGERS = {"matrix", "lags", "channels", "taps"}, {"count", "bins", "counts"}
ANY_SIGN = {"mean", "paired_mean", "eigenvectors", "left", "right", *STORED}


def usable(record: Item) -> bool:
    """Whether this reader knows the record's kind, its version, and what its rows and features are."""
    known = record["kind"] in CONVENTIONS and record["features"] in ("flattened", "channel", "patch")
    return known and record.get("kind_version", 1) == 1 and record["group"]["by"] in ("all", "class")


def layout(record: Item, classes: int) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """The tensors that a usable record must have: the dtypes of each, and its shape, -1 for a length of the data's."""
    kind, where = record["kind"], f"records: {record['id']}"
    given = {name: "null" if value is None else value for name, value in record.get("configuration", {}).items()}
    for name, value in record.get("conventions", {}).items():
        demand(CONVENTIONS[kind].get(name, value) == value, "wrong-convention", where)
    demand(kind != "cross-spectrum" or "paired_site" in record, "missing-member", f"{where}.paired_site")
    demand(kind == "moments" or not record["mergeable"], "not-mergeable", where)
    window = record["features"] == "patch" and kind == "second-moment"
    try:
        members(CONFIGURATIONS.get(kind, "") + WINDOW * window, given, where, [])
    except Refused:
        raise Refused("bad-configuration", where) from None
    d, k, p = record["feature_count"], given.get("rank", 1), given.get("paired_feature_count", 0)
    sizes = {"d": d, "k": k, "p": p, "b": -1}
    words, fine = LAYOUTS.get(kind, ""), True
    if kind in ("spectrum", "cross-spectrum"):
        fine = k <= min(d, p or d) and k <= given.get("sketch", k) <= d + p
        words += " error_bound=" if "sketch" in given else ""
    elif kind == "second-moment":
        words, fine = _second_moment(given, window, sizes)
    demand(fine, "bad-configuration", where)
    found = {}
    for name, letters in (word.split("=") for word in f"count= {words}".split()):
        rows = (classes,) if record["group"]["by"] == "class" and name != "bins" else ()
        groups = (sizes["g"],) if "g" in sizes and name != "count" else ()
        dtypes = ("int64",) if name in INTEGERS else STORAGE[given["storage"] if name in STORED else "float32"]
        found[name] = (dtypes, (*rows, *groups, *(sizes[letter] for letter in letters)))
    demand(found.keys() <= record["tensors"].keys(), "missing-statistic", f"{where}.tensors")
    demand(found.keys() >= record["tensors"].keys(), "unknown-statistic", f"{where}.tensors")
    return found


def _second_moment(given: Item, window: bool, sizes: dict[str, int]) -> tuple[str, bool]:
    form, exact, kernel = given["form"], given["storage"] == "float32", given["kernel"] if window else []
    taps, lags = math.prod(kernel), (math.prod(2 * extent - 1 for extent in kernel) + 1) // 2
    side = sizes["d"] // taps
    fine = exact if form == "diagonal" else form == "full" or window
    if window:
        fine &= len(kernel) == len(given["strides"]) == len(given["dilations"]) == len(given["pads"]) / 2
        sizes["g"] = given["groups"]
    sizes |= {"c": side, "t": taps, "l": lags, "C": side * (side + 1) // 2, "T": taps * (taps + 1) // 2}
    sizes["D"] = sizes["d"] * (sizes["d"] + 1) // 2
    fine &= window or not given.keys() & {"kernel", "strides", "dilations", "pads", "groups"}
    return LAYOUTS[form] + ("" if exact else DIAGONALS.get(form, "")), fine and sizes["d"] % taps == 0


def examine(record: Item, arrays: dict[str, Array]) -> None:
    """Hold the numbers of a usable record, whose tensors have their dtypes and shapes, against the page of its kind."""
    where, rows = f"records: {record['id']}", np.atleast_1d(arrays["count"])
    for name, array in arrays.items():
        place = f"{where}.{name}"
        demand(np.isfinite(array).all(), "not-finite", place)
        demand(name in ANY_SIGN or (array >= 0).all(), "negative", place)
        demand(name == "bins" or not array.reshape(len(rows), -1)[rows == 0].any(), "filler", place)
        demand(name not in ("eigenvalues", "singular_values") or (np.diff(array) <= 0).all(), "unsorted", place)
        for block in array.reshape(-1, *array.shape[-2:]) if name in ("eigenvectors", "left", "right") else ():
            kept = block[block.any(axis=1)].astype(np.float64)
            with np.errstate(all="ignore"):
                off = np.abs(kept @ kept.T - np.eye(len(kept)))
            demand((off <= LIMIT["orthonormal_tolerance"]).all(), "not-orthonormal", place)
        if name in STORED:
            _stored(name, array, record["configuration"]["storage"], place)
    demand(not rows[record.get("suppressed_groups", [])].any(), "not-suppressed", where)
    if record["kind"] == "cross-spectrum":
        left, right = (arrays[name].any(axis=-1) for name in ("left", "right"))
        demand((left == right).all() and not arrays["singular_values"][~left].any(), "incomplete-pair", where)
    if record["kind"] == "histogram":
        bins, exponent = arrays["bins"], arrays["bins"] // 16 % 256
        usual = (bins > 0) & (bins < 8192) & (exponent > 0) & (exponent < 255)
        demand(len(bins) == arrays["counts"].shape[-1], "wrong-shape", where)
        demand((usual | (bins == 0)).all(), "unknown-bin", where)
        demand((np.diff(np.where(bins < 4096, bins, 4096 - bins)) > 0).all(), "unsorted", where)
        sums = [sum(row) for row in arrays["counts"].reshape(len(rows), -1).tolist()]
        demand(sums == rows.tolist(), "not-a-sum", where)


def _stored(name: str, array: Array, storage: str, where: str) -> None:
    most = {"int8": 127, "float16": 1}.get(storage, np.inf)
    demand((array <= most).all() and (array >= -most).all(), "not-a-correlation", where)
    if name == "lags":
        block = array[..., 0, :, :]
        demand((block == np.swapaxes(block, -1, -2)).all(), "not-symmetric", where)
        demand(storage != "float32" or (np.diagonal(block, 0, -2, -1) >= 0).all(), "negative", where)
    elif storage == "float32":
        side = (math.isqrt(8 * array.shape[-1] + 1) - 1) // 2
        matrix, lower = np.zeros((side, side)), np.tril_indices(side)
        for packed in array.reshape(-1, array.shape[-1]):
            matrix[lower] = packed
            diagonal = matrix.diagonal()
            demand((diagonal >= 0).all(), "negative", where)
            bound = np.outer(np.sqrt(diagonal), np.sqrt(diagonal)) * (1 + LIMIT["cauchy_schwarz_tolerance"]) + 2**-126
            demand((np.abs(matrix) <= bound).all(), "not-a-moment", where)
            shift = LIMIT["semi_definite_tolerance"] * side * np.eye(side)
            try:
                if name == "matrix" and side <= LIMIT["semi_definite_side"] and diagonal.any():
                    np.linalg.cholesky(matrix / diagonal.max() + shift)
            except np.linalg.LinAlgError:
                raise Refused("not-semi-definite", where) from None
