"""The records floor: taking statistics on the publisher's side, reading them on the consumer's.

Each name brings its own module when it is first used: checking a probe needs no torch, taking records does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfmeta._lazily import exports

_HOMES = {
    "fit_bytes": "dfmeta.records.budget",
    "fit_gathered": "dfmeta.records.budget",
    "parse_bytes": "dfmeta.records.budget",
    "DEFAULT_MEMORY_LIMIT": "dfmeta.records.gathered",
    "Gathered": "dfmeta.records.gathered",
    "RecordPlan": "dfmeta.records.plan",
    "SitePlan": "dfmeta.records.plan",
    "planned_bytes": "dfmeta.records.plan",
    "DEFAULT_RANK": "dfmeta.records.presets",
    "PRESETS": "dfmeta.records.presets",
    "make_plan": "dfmeta.records.presets",
    "DifferentialPrivacy": "dfmeta.records.privacy",
    "private_plan": "dfmeta.records.privacy",
    "Probe": "dfmeta.records.probe",
    "check_probe": "dfmeta.records.probe",
    "take_probe": "dfmeta.records.probe",
    "DEFAULT_MIN_UNITS": "dfmeta.records.publication",
    "Recording": "dfmeta.records.publication",
    "Taken": "dfmeta.records.publication",
    "PublishedRecords": "dfmeta.records.published",
    "Statistic": "dfmeta.records.published",
    "Recorder": "dfmeta.records.recorder",
    "Features": "dfmeta.records.samples",
    "feature_vectors": "dfmeta.records.samples",
    "Shard": "dfmeta.records.shards",
    "merge_shards": "dfmeta.records.shards",
    "find_sites": "dfmeta.records.sites",
    "left_out": "dfmeta.records.sites",
}

if TYPE_CHECKING:
    from dfmeta.records.budget import fit_bytes, fit_gathered, parse_bytes
    from dfmeta.records.gathered import DEFAULT_MEMORY_LIMIT, Gathered
    from dfmeta.records.plan import RecordPlan, SitePlan, planned_bytes
    from dfmeta.records.presets import DEFAULT_RANK, PRESETS, make_plan
    from dfmeta.records.privacy import DifferentialPrivacy, private_plan
    from dfmeta.records.probe import Probe, check_probe, take_probe
    from dfmeta.records.publication import DEFAULT_MIN_UNITS, Recording, Taken
    from dfmeta.records.published import PublishedRecords, Statistic
    from dfmeta.records.recorder import Recorder
    from dfmeta.records.samples import Features, feature_vectors
    from dfmeta.records.shards import Shard, merge_shards
    from dfmeta.records.sites import find_sites, left_out
else:
    __getattr__, __dir__ = exports(__name__, _HOMES)

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
    "take_probe",
]
