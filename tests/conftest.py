"""Fixtures that every floor's tests share."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

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
