"""The records floor: taking statistics on the publisher's side, reading them on the consumer's."""

from __future__ import annotations

from dfmeta.records.presets import (
    DEFAULT_RANK,
    PRESETS,
    RecordPlan,
    SitePlan,
    find_sites,
    make_plan,
)
from dfmeta.records.probe import Probe, check_probe, take_probe
from dfmeta.records.published import PublishedRecords, Statistic
from dfmeta.records.recorder import DEFAULT_MEMORY_LIMIT, DEFAULT_MIN_UNITS, Recorder, Recording, Taken
from dfmeta.records.samples import feature_vectors

__all__ = [
    "DEFAULT_MEMORY_LIMIT",
    "DEFAULT_MIN_UNITS",
    "DEFAULT_RANK",
    "PRESETS",
    "Probe",
    "PublishedRecords",
    "RecordPlan",
    "Recorder",
    "Recording",
    "SitePlan",
    "Statistic",
    "Taken",
    "check_probe",
    "feature_vectors",
    "find_sites",
    "make_plan",
    "take_probe",
]
