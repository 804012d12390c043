"""The records floor: taking statistics on the publisher's side, reading them on the consumer's."""

from __future__ import annotations

from dfmeta.records.budget import fit_bytes, fit_gathered, parse_bytes
from dfmeta.records.gathered import DEFAULT_MEMORY_LIMIT, Gathered
from dfmeta.records.plan import RecordPlan, SitePlan, planned_bytes
from dfmeta.records.presets import DEFAULT_RANK, PRESETS, make_plan
from dfmeta.records.privacy import DifferentialPrivacy, private_plan
from dfmeta.records.probe import Probe, check_probe, take_probe
from dfmeta.records.publication import DEFAULT_MIN_UNITS, Recording, Taken, publication
from dfmeta.records.published import PublishedRecords, Statistic
from dfmeta.records.recorder import Recorder
from dfmeta.records.samples import Features, feature_vectors
from dfmeta.records.shards import Shard, merge_shards
from dfmeta.records.sites import find_sites, left_out

__all__ = [
    "DEFAULT_MEMORY_LIMIT",
    "DEFAULT_MIN_UNITS",
    "DEFAULT_RANK",
    "PRESETS",
    "DifferentialPrivacy",
    "Features",
    "Gathered",
    "Probe",
    "PublishedRecords",
    "RecordPlan",
    "Recorder",
    "Recording",
    "Shard",
    "SitePlan",
    "Statistic",
    "Taken",
    "check_probe",
    "feature_vectors",
    "find_sites",
    "fit_bytes",
    "fit_gathered",
    "left_out",
    "make_plan",
    "merge_shards",
    "parse_bytes",
    "planned_bytes",
    "private_plan",
    "publication",
    "take_probe",
]
