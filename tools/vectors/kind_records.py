"""A good record of each kind, and bundles that hold one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from vectors.drafts import Draft, Json
from vectors.manifests import add, by_row, small
from vectors.onnx_bytes import relu

Tensors = dict[str, np.ndarray]
F32 = np.float32
WINDOW = {"kernel": [2, 2], "strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0], "groups": 1}


def floats(*values: float) -> np.ndarray:
    """A vector of F32."""
    return np.array(values, F32)


def spectrum() -> tuple[Tensors, Json]:
    """Two eigenpairs of two features."""
    tensors = {
        "count": np.array(40),
        "mean": floats(0.5, 0.25),
        "eigenvalues": floats(2, 1),
        "eigenvectors": np.eye(2, dtype=F32),
        "residual_trace": np.zeros((), F32),
    }
    return tensors, {"configuration": {"rank": 2}}


def cross_spectrum() -> tuple[Tensors, Json]:
    """Two singular pairs of a site and itself."""
    tensors = {
        "count": np.array(40),
        "mean": floats(0.5, 0.25),
        "paired_mean": floats(0.5, 0.25),
        "singular_values": floats(2, 1),
        "left": np.eye(2, dtype=F32),
        "right": np.eye(2, dtype=F32),
        "residual": np.zeros((), F32),
    }
    return tensors, {"configuration": {"rank": 2, "paired_feature_count": 2}, "paired_site": "s0"}


def histogram() -> tuple[Tensors, Json]:
    """Sixty values from -2, ten zeros and ten from 1."""
    tensors = {"count": np.array(80), "bins": np.array([6144, 0, 2032]), "counts": np.array([60, 10, 10])}
    return tensors, {"features": "flattened", "configuration": {}}


def second_moment() -> tuple[Tensors, Json]:
    """The whole matrix of two features."""
    tensors = {"count": np.array(40), "mean": floats(0.5, 0.25), "matrix": floats(2, 1, 2)}
    return tensors, {"configuration": {"form": "full", "storage": "float32"}}


def correlations(storage: str) -> tuple[Tensors, Json]:
    """The same in fewer bits."""
    one, dtype = (127, np.int8) if storage == "int8" else (1, np.float16)
    tensors, _ = second_moment()
    tensors["matrix"] = np.array([one, one / 2, one]).astype(dtype)
    tensors["diagonal"] = floats(2, 2)
    return tensors, {"configuration": {"form": "full", "storage": storage}}


def diagonal() -> tuple[Tensors, Json]:
    """The diagonal alone."""
    tensors = {"count": np.array(40), "mean": floats(0.5, 0.25), "diagonal": floats(2, 2)}
    return tensors, {"configuration": {"form": "diagonal", "storage": "float32"}}


def windowed(form: str) -> tuple[Tensors, Json]:
    """Patches of two channels and four taps."""
    tensors = {"count": np.array(160), "mean": np.zeros((1, 8), F32)}
    if form == "toeplitz":
        lags = np.zeros((1, 5, 2, 2), F32)
        lags[0, 0] = [[2, 1], [1, 2]]
        tensors["lags"] = lags
    else:
        tensors |= {"channels": floats(2, 1, 2)[None], "taps": floats(1, 0, 1, 0, 0, 1, 0, 0, 0, 1)[None]}
    configuration = {"form": form, "storage": "float32", **WINDOW}
    more = {"configuration": configuration, "features": "patch", "feature_count": 8, "position_count": 160}
    return tensors, more


def image() -> Draft:
    """A small bundle whose graph takes two channels of 3 by 3."""
    return reshaped(["batch", 2, 3, 3])


def three() -> Draft:
    """A small bundle of three features, and no record yet."""
    draft = reshaped(["batch", 3])
    draft.manifest["records"], draft.sidecars = [], {}
    draft.manifest["sites"][0]["feature_count"] = 3
    return draft


def reshaped(dims: list[int | str]) -> Draft:
    """A small bundle of another shape."""
    draft = small()
    draft.members["model.onnx"] = relu(dims)
    model = draft.manifest["model"]
    for place in (model["inputs"][0], model["outputs"][0], draft.manifest["sites"][0]):
        place["shape"] = list(dims)
    return draft


def with_record(kind: str, made: tuple[Tensors, Json], **changed: np.ndarray) -> Callable[[Draft], None]:
    """A second record, with some of its tensors changed, or added."""
    tensors, more = made
    return lambda draft: add(draft, kind, tensors | changed, **more)


def with_grouped(kind: str, made: tuple[Tensors, Json], **changed: np.ndarray) -> Callable[[Draft], None]:
    """The same by class; of the second class nothing was seen."""
    tensors, more = made
    shared = {"bins"} & tensors.keys()
    rows = by_row({name: each for name, each in tensors.items() if name not in shared})
    rows |= {name: tensors[name] for name in shared}
    group = {"group": {"by": "class", "label_set": "digits"}, "mergeable": False}
    return lambda draft: add(draft, kind, rows | changed, **more | group)


def with_configuration(kind: str, made: tuple[Tensors, Json], **members: object) -> Callable[[Draft], None]:
    """A second record whose configuration says something else; None leaves a member out."""
    tensors, more = made
    configuration = {k: v for k, v in (more["configuration"] | members).items() if v is not None}
    return lambda draft: add(draft, kind, tensors, **more | {"configuration": configuration})


spectral = partial(with_record, "spectrum", spectrum())
crossed = partial(with_record, "cross-spectrum", cross_spectrum())
binned = partial(with_record, "histogram", histogram())
second = partial(with_record, "second-moment", second_moment())
