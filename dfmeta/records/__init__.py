"""The records floor: taking statistics on the publisher's side, reading them on the consumer's."""

from __future__ import annotations

from dfmeta.records.gathered import DEFAULT_MEMORY_LIMIT, Gathered
from dfmeta.records.plan import RecordPlan, SitePlan
from dfmeta.records.presets import DEFAULT_RANK, PRESETS, find_sites, make_plan
from dfmeta.records.probe import Probe, check_probe, take_probe
from dfmeta.records.publication import DEFAULT_MIN_UNITS, Recording, Taken, publication
from dfmeta.records.published import PublishedRecords, Statistic
from dfmeta.records.recorder import Recorder
from dfmeta.records.samples import Features, feature_vectors

__all__ = [
    "DEFAULT_MEMORY_LIMIT",
    "DEFAULT_MIN_UNITS",
    "DEFAULT_RANK",
    "PRESETS",
    "Features",
    "Gathered",
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
    "publication",
    "take_probe",
]
