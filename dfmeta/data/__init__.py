"""What ``--data`` accepts, and preprocessing: from files to the batches that a model reads."""

from __future__ import annotations

from dfmeta.data.columns import check_labels
from dfmeta.data.feed import feed
from dfmeta.data.fitting import fitted_input
from dfmeta.data.flags import describe, from_flags
from dfmeta.data.preprocessing import input_bounds, preprocess
from dfmeta.data.sources import Batch, DataSource, open_data

__all__ = [
    "Batch",
    "DataSource",
    "check_labels",
    "describe",
    "feed",
    "fitted_input",
    "from_flags",
    "input_bounds",
    "open_data",
    "preprocess",
]
