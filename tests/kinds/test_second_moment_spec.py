"""What a `second-moment` record may hold and say, and how it is read."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from dfmeta._catalog import KINDS
from dfmeta.kinds.second_moment.reading import MAX_SIDE, matrix
from dfmeta.numerics.packed import pack

SPEC = KINDS.load("second-moment", "spec")
GATHERING = KINDS.load("second-moment", "accumulate")
PLAIN = {"form": "full", "storage": "float32"}
WINDOW = {"kernel": [3, 3], "strides": [1, 1], "dilations": [1, 1], "pads": [1, 1, 1, 1], "groups": 2}
PATCH = {**PLAIN, **WINDOW}


def shapes(features, groups, configuration):
    return {name: layout.shape for name, layout in SPEC.layout(features, groups, configuration).items()}


def test_shapes_of_every_form():
    assert shapes(4, None, PLAIN) == {"count": (), "mean": (4,), "matrix": (10,)}
    assert shapes(4, 3, {**PLAIN, "form": "diagonal"}) == {"count": (3,), "mean": (3, 4), "diagonal": (3, 4)}
    assert shapes(18, None, PATCH) == {"count": (), "mean": (2, 18), "matrix": (2, 171)}
    assert shapes(18, 5, {**PATCH, "form": "toeplitz"})["lags"] == (5, 2, 13, 2, 2)
    kronecker = shapes(18, None, {**PATCH, "form": "kronecker", "storage": "int8"})
    assert kronecker == {
        "count": (),
        "mean": (2, 18),
        "channels": (2, 3),
        "channels_diagonal": (2, 2),
        "taps": (2, 45),
        "taps_diagonal": (2, 9),
    }


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_few_bits_have_their_own_type_beside_a_real_diagonal(storage):
    found = SPEC.layout(18, None, {**PATCH, "form": "toeplitz", "storage": storage})
    assert found["lags"].dtypes == {storage}
    assert found["diagonal"].dtypes == {"float32", "float64"}
    assert found["diagonal"].shape == (2, 2)


HOSTILE = [
    ({}, "form None"),
    ({"form": "full"}, "storage None"),
    ({**PLAIN, "form": ["full"]}, "form "),
    ({**PLAIN, "storage": "float64"}, "storage 'float64'"),
    ({**PLAIN, "form": "diagonal", "storage": "int8"}, "has no correlations"),
    ({**PLAIN, "form": "toeplitz"}, "without a kernel"),
    ({**PLAIN, "exact": 1}, "exact 1"),
    ({**PLAIN, "groups": 1}, "without kernel, strides"),
    *(({name: value for name, value in PATCH.items() if name != key}, f"without {key}") for key in WINDOW),
    *(
        ({**PATCH, key: value}, f"{key}|strides")
        for key, value in itertools.product(
            WINDOW, [None, True, "3", {}, [], [3], [3, 3, 3, 3, 3], [3, True], [3, -1], [3, 2**70], [3, 1.0], -1, 2**70]
        )
    ),
    ({**PATCH, "kernel": [0, 3]}, "kernel"),
    ({**PATCH, "kernel": [5, 3]}, "do not divide 18"),
    ({**PATCH, "groups": 0}, "groups 0"),
    ({**PATCH, "groups": [1]}, "groups"),
]


@pytest.mark.parametrize(("configuration", "said"), HOSTILE)
def test_a_hostile_configuration_is_a_value_error(configuration, said):
    with pytest.raises(ValueError, match=said):
        SPEC.layout(18, None, configuration)
    with pytest.raises(ValueError, match=said):
        GATHERING.Accumulator(18, 1, configuration)


def test_a_vast_kernel_is_not_listed():
    configuration = {**PATCH, "form": "toeplitz", "kernel": [65_535, 65_535]}
    assert shapes(65_535**2, None, configuration)["lags"][1] == (131_069**2 + 1) // 2


def test_more_than_memory_holds_is_not_read():
    configuration = {**PLAIN, "form": "diagonal"}
    tensors = {"count": np.array(1), "mean": np.zeros(MAX_SIDE + 1), "diagonal": np.zeros(MAX_SIDE + 1)}
    with pytest.raises(ValueError, match="32769 features"):
        matrix(tensors, MAX_SIDE + 1, configuration)


def record(form="full", storage="float32", **changes):
    """A sound record of two classes, the second unobserved, in which single numbers may be changed."""
    configuration = {**PATCH, "form": form, "storage": storage}
    accumulator = GATHERING.Accumulator(18, 2, configuration)
    value = torch.rand(20, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    accumulator.update(value, torch.zeros(20, dtype=torch.int64))
    tensors = {name: values.copy() for name, values in accumulator.tensors(torch.tensor([20, 0]), 1).items()}
    for name, (place, number) in changes.items():
        tensors[name][place] = number
    return tensors


@pytest.mark.parametrize(
    ("tensors", "codes"),
    [
        *((record(form, storage), []) for form in ("full", "toeplitz", "kronecker") for storage in ("float32", "int8")),
        (record("diagonal"), []),
        (record(mean=((0, 0, 0), np.nan)), ["not-finite"]),
        (record("full", "float16", matrix=((0, 0, 1), np.inf)), ["not-finite"]),
        (record(count=(0, -1)), ["negative"]),
        (record(mean=((1, 0, 0), 1)), ["filler"]),
        (record("full", "int8", matrix=((1, 0, 0), 1)), ["filler"]),
        (record("diagonal", diagonal=((0, 1, 2), -1)), ["negative"]),
        (record("full", "int8", diagonal=((0, 1, 2), -1)), ["negative"]),
        (record(matrix=((0, 0, 2), -1)), ["negative"]),
        (record("toeplitz", lags=((0, 0, 0, 1, 1), -1)), ["negative"]),
        (record("toeplitz", lags=((0, 0, 0, 0, 1), 3)), ["not-symmetric"]),
        (record("kronecker", taps=((0, 0, 1), 1e30)), ["not-a-moment"]),
        (record(matrix=((0, 1, 1), -100)), ["not-a-moment"]),
        (record("full", "int8", matrix=((0, 0, 1), -128)), ["not-a-correlation"]),
        (record("toeplitz", "float16", lags=((0, 0, 3, 0, 1), 1.5)), ["not-a-correlation"]),
    ],
)
def test_numbers_that_contradict_the_kind_are_problems(tensors, codes):
    problems = SPEC.check(tensors, "records[0]")
    assert [problem.code for problem in problems] == codes
    assert all(problem.where.startswith("records[0].") for problem in problems)


@pytest.mark.parametrize("form", ["full", "toeplitz", "kronecker", "diagonal"])
def test_a_record_by_class_is_read_class_by_class(form):
    configuration = {**PATCH, "form": form}
    tensors = record(form)
    found = matrix(tensors, 18, configuration)
    assert found.shape == (2, 2, 18, 18)
    first = matrix({name: values[0] for name, values in tensors.items()}, 18, configuration)
    np.testing.assert_array_equal(found[0], first)
    assert not found[1].any()


def test_a_record_of_rows_by_class_is_read_class_by_class():
    rows = np.random.default_rng(0).normal(size=(2, 9, 4))
    whole = np.einsum("cni,cnj->cij", rows, rows) / 9
    tensors = {"count": np.array([9, 9]), "mean": rows.mean(1), "matrix": pack(whole)}
    np.testing.assert_allclose(matrix(tensors, 4, PLAIN), whole[:, None])
    one = {name: values[:1] for name, values in tensors.items()}
    np.testing.assert_allclose(matrix(one, 4, PLAIN), whole[:1, None])


def test_reading_makes_rounded_numbers_semidefinite_again():
    """Of few samples H is singular: rounding to 8 bits leaves negative eigenvalues, which Cholesky would stop at."""
    configuration = {**PLAIN, "storage": "int8"}
    accumulator = GATHERING.Accumulator(30, 1, configuration)
    accumulator.update(
        torch.randn(5, 30, generator=torch.Generator().manual_seed(0)), torch.zeros(5, dtype=torch.int64)
    )
    tensors = {name: values[0] for name, values in accumulator.tensors(torch.tensor([5]), 1).items()}
    [found] = matrix(tensors, 30, configuration)
    assert np.linalg.eigvalsh(found).min() > -1e-12
    np.testing.assert_allclose(np.diagonal(found), tensors["diagonal"], rtol=1e-12)
    coded = np.zeros((30, 30))
    coded[np.tril_indices(30)] = tensors["matrix"] / 127
    coded = coded + np.tril(coded, -1).T
    assert np.linalg.eigvalsh(coded).min() < -1e-3, "nothing had to be repaired"
