"""Fixtures that every floor's tests share."""

from __future__ import annotations

import errno
import os
import signal
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ``DFMETA_NO_SKIP`` set, as in CI, a test that skips fails; only a missing GPU may skip one."""
    report = yield
    excused = hasattr(report, "wasxfail") or item.get_closest_marker("gpu")
    if report.skipped and os.environ.get("DFMETA_NO_SKIP") and not excused:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"DFMETA_NO_SKIP is set, and this test skips. {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _width_of_a_pipe() -> None:
    """Workers of pytest-xdist are given a terminal's width, which tables would then be broken to."""
    os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of public data sets that are never committed: ``$DFMETA_SHARED``, default ``../shared``."""
    folder = Path(os.environ.get("DFMETA_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no data sets at {folder}: set DFMETA_SHARED to the folder that holds data/ and models/")
    return folder


@pytest.fixture(scope="session")
def digits() -> tuple[Any, Any]:
    """The training digits as tensors: images float32 ``[n, 1, 8, 8]`` in 0..1, and int64 labels."""
    import torch

    from dfmeta.data import open_data

    batch = next(open_data("digits:train").batches(2000))
    return torch.tensor(batch.inputs["x"])[:, None].float() / 255, torch.tensor(batch.labels)


@pytest.fixture(scope="session")
def digits_network(digits: tuple[Any, Any]) -> Any:
    """A small convolutional torch module with BatchNorm, trained on the digits for a second. Do not change it."""
    import torch
    from torch import nn

    images, labels = digits
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
        network = nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
        for _ in range(10):
            for rows in torch.randperm(len(images)).split(128):
                loss = nn.functional.cross_entropy(network(images[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return network.eval()


@pytest.fixture(scope="session")
def digits_teacher(digits: tuple[Any, Any], digits_network: Any) -> Any:
    """:func:`digits_network` as a graph for publishing: ``image`` to ``logits``, free batch, BatchNorm kept."""
    from dfmeta.graph.export_torch import export_module

    names = {"input_names": ["image"], "output_names": ["logits"]}
    return export_module(digits_network, (digits[0][:1],), **names, dynamic_batch=True, keep_batchnorm=True)


@pytest.fixture(scope="session")
def digits_bundle(digits_teacher: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of :func:`digits_teacher` with every preset's records. Do not change it: take a copy."""
    from dfmeta.data import from_flags
    from dfmeta.pipeline import record

    out = tmp_path_factory.mktemp("digits") / "bundle"
    return record(
        digits_teacher,
        "digits:train",
        out,
        presets=("top-layer", "all-layers", "spectral"),
        preprocessing=from_flags(1 / 255),
    ).path


class FaultyDisk:
    """The operations by which dfmeta changes a disk, of which one fails, or is the last of a process.

    Attributes:
        done: names of the operations so far, since the last ``with``.
    """

    def __init__(self) -> None:
        from dfmeta.bundle import operations

        self._module = operations
        self.done: list[str] = []

    @contextmanager
    def refusing(self, at: int) -> Iterator[None]:
        """The ``at``-th operation, from 1, raises what a full disk does."""

        def before(name: str, arguments: tuple[Any, ...]) -> None:
            if len(self.done) == at:
                if name == "close":
                    os.close(arguments[0])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with self._watched(before):
            yield

    @contextmanager
    def dying(self, look: Callable[[str], None]) -> Iterator[None]:
        """At each operation a real child that has come as far is killed; then ``look`` is told at which.

        A write has reached the file with half of its bytes when the child dies. What it did is undone afterwards, and
        the parent goes on to the next operation.
        """

        def before(name: str, arguments: tuple[Any, ...]) -> None:
            place = os.lseek(arguments[0], 0, os.SEEK_CUR) if name == "write" else 0
            with warnings.catch_warnings():
                # Later versions of Python warn of threads in the parent; this child runs nothing that could wait.
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                if name == "write":
                    os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
            look(name)
            if name == "write":
                os.ftruncate(arguments[0], place)
                os.lseek(arguments[0], place, os.SEEK_SET)

        with self._watched(before):
            yield
        look("end")

    @contextmanager
    def _watched(self, before: Callable[[str, tuple[Any, ...]], None]) -> Iterator[None]:
        self.done.clear()

        def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                self.done.append(name)
                before(name, arguments)
                return real(*arguments)

            return call

        with pytest.MonkeyPatch.context() as patch:
            for name in self._module.__all__:
                patch.setattr(self._module, name, wrap(name, getattr(self._module, name)))
            yield


@pytest.fixture
def faulty_disk() -> FaultyDisk:
    """A disk on which each operation can fail, or be the last."""
    return FaultyDisk()
