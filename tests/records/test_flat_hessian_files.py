"""Published Hessians: un-centred they are the moments of the rows themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dfmeta.errors import DataError, SchemaError
from dfmeta.kinds.second_moment import spec
from dfmeta.numerics.packed import unpack
from dfmeta.records.flat_hessian_files import read_flat_hessians

ROWS = np.random.default_rng(0).normal([3, -1, 0, 5], [1, 2, 3, 0.1], (200, 4))


def members(rows: np.ndarray = ROWS) -> dict[str, Any]:
    """As QuIP#'s script makes them, in torch."""
    x = torch.tensor(rows)
    mu, h = x.mean(0), x.T @ x / len(x)
    h = h - mu[:, None] * mu[None]
    places = torch.tril_indices(len(h), len(h))
    return {"flatH": h[places.unbind()].float(), "mu": mu.float(), "n": h.shape[0], "ct": len(x)}


def saved(folder: Path, name: str = "0_qkv", **change: Any) -> Path:
    path = folder / f"{name}.pt"
    torch.save({key: value for key, value in (members() | change).items() if value is not None}, path)
    return path


def test_it_is_the_moment_of_the_rows(tmp_path: Path) -> None:
    file = read_flat_hessians([saved(tmp_path)])
    (moment,) = file.moments
    expected = ROWS.T @ ROWS / len(ROWS)
    assert (moment.name, moment.count, moment.form, file.unit, file.units) == ("0_qkv", 200, "full", "row", 200)
    assert moment.matrix is not None
    np.testing.assert_allclose(unpack(moment.matrix), expected, atol=1e-5)
    np.testing.assert_allclose(moment.diagonal, np.diag(expected), rtol=1e-6)
    np.testing.assert_allclose(moment.mean, ROWS.mean(0), rtol=1e-6)
    tensors = {"count": np.asarray(200), "mean": np.float32(moment.mean), "matrix": moment.matrix}
    assert not spec.check(tensors, "record")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_safetensors_twin(dtype: torch.dtype, tmp_path: Path) -> None:
    given = {key: torch.as_tensor(value) for key, value in members().items()}
    save_file({**given, "flatH": given["flatH"].to(dtype)}, tmp_path / "0_o.safetensors")
    (found,) = read_flat_hessians([tmp_path / "0_o.safetensors"]).moments
    (other,) = read_flat_hessians([saved(tmp_path)]).moments
    assert found.count == 200
    np.testing.assert_allclose(found.matrix, other.matrix, atol=0.05 if dtype == torch.bfloat16 else 1e-6)


def test_a_constant_feature_and_one_that_is_always_0(tmp_path: Path) -> None:
    rows = ROWS * [1, 0, 1, 0] + [0, 0, 0, 7]
    given = members(rows)
    given["flatH"][9] = -1e-9
    (moment,) = read_flat_hessians([saved(tmp_path, **given)]).moments
    assert moment.matrix is not None
    np.testing.assert_allclose(unpack(moment.matrix), rows.T @ rows / 200, atol=1e-4)
    tensors = {"count": np.asarray(200), "mean": np.float32(moment.mean), "matrix": moment.matrix}
    assert not spec.check(tensors, "record")


def test_nothing_counted_is_nothing_observed(tmp_path: Path) -> None:
    (moment,) = read_flat_hessians([saved(tmp_path, ct=0)]).moments
    assert (moment.count, float(np.abs(moment.matrix).sum())) == (0, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mu": None}, "found ct, flatH, n, and no mu"),
        ({"flatH": None, "invH": torch.eye(4)}, r"no flatH.*Inverse Hessians"),
        ({"n": 5}, "10 entries of flatH and 4 of mu, expected 15 and 5"),
        ({"n": 0}, "n: found 0"),
        ({"n": 10**6}, "expected 1 to 32768"),
        ({"n": 4.5}, "a whole number"),
        ({"ct": -1}, "a whole number"),
        ({"ct": "many"}, "a whole number"),
        ({"mu": torch.zeros(2, 2)}, r"float32 \[2, 2\]"),
        ({"mu": 7}, "a int"),
        ({"flatH": torch.zeros(10, dtype=torch.int64)}, "int64"),
        ({"flatH": torch.full((10,), torch.nan)}, "flatH: found NaN"),
        ({"mu": torch.full((4,), torch.inf)}, "NaN, an infinity"),
        ({"flatH": -members()["flatH"]}, "a variance of -"),
        ({"flatH": members()["flatH"] + torch.tensor([0, 99.0, 0, 0, 0, 0, 0, 0, 0, 0])}, "a larger entry in row 1"),
    ],
    ids=range(15),
)
def test_numbers_that_are_no_moments(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_flat_hessians([saved(tmp_path, **change)])


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"the ending '\.bin'"):
        read_flat_hessians([tmp_path / "a.bin"])
    (tmp_path / "a.safetensors").write_bytes(b"1234")
    with pytest.raises(DataError, match="4 bytes"):
        read_flat_hessians([tmp_path / "a.safetensors"])
    (tmp_path / "a.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(SchemaError):
        read_flat_hessians([tmp_path / "a.safetensors"])
    save_file({"flatH": torch.zeros(1, dtype=torch.bool)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="type BOOL"):
        read_flat_hessians([tmp_path / "a.safetensors"])
    folder = tmp_path / "x"
    folder.mkdir()
    with pytest.raises(DataError, match="a second file"):
        read_flat_hessians([saved(tmp_path), saved(folder)])
