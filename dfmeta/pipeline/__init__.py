"""The pipeline floor: public functions that combine the floors below, one for each verb."""

from __future__ import annotations

from dfmeta.pipeline.audit import Audit, audit
from dfmeta.pipeline.check import validate
from dfmeta.pipeline.consume import DEFAULT_METHOD, Distilled, distill, open_release, reconstruct, synthesise
from dfmeta.pipeline.evaluation import Evaluation, evaluate
from dfmeta.pipeline.gathering import Gathering, Job, gather, make_job, plan_facts
from dfmeta.pipeline.inputs import graph_inputs, make_task
from dfmeta.pipeline.merging import merge, merge_into_shard, merge_with
from dfmeta.pipeline.model import load_model
from dfmeta.pipeline.recording import Running, ShardWritten, record, record_shard, record_with
from dfmeta.pipeline.release import Published, Publishing, Release, publish
from dfmeta.records import DifferentialPrivacy

__all__ = [
    "DEFAULT_METHOD",
    "Audit",
    "DifferentialPrivacy",
    "Distilled",
    "Evaluation",
    "Gathering",
    "Job",
    "Published",
    "Publishing",
    "Release",
    "Running",
    "ShardWritten",
    "audit",
    "distill",
    "evaluate",
    "gather",
    "graph_inputs",
    "load_model",
    "make_job",
    "make_task",
    "merge",
    "merge_into_shard",
    "merge_with",
    "open_release",
    "plan_facts",
    "publish",
    "reconstruct",
    "record",
    "record_shard",
    "record_with",
    "synthesise",
    "validate",
]
