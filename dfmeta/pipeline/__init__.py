"""The pipeline floor: public functions that combine the floors below, one for each verb.

Each name brings its own module when it is first used: checking a bundle needs far less than recording one.

These functions do not isolate: they run a graph in the process that calls them, without a limit on its memory or its
time. The command line does each verb's work in a child process that it watches. A program that opens bundles of
strangers should call the command, or give these functions a process of its own with limits of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfmeta._lazily import exports

_HOMES = {
    "Audit": "dfmeta.pipeline.auditing",
    "audit": "dfmeta.pipeline.auditing",
    "validate": "dfmeta.pipeline.check",
    "DEFAULT_STUDENT": "dfmeta.pipeline.consume",
    "Distilled": "dfmeta.pipeline.consume",
    "distill": "dfmeta.pipeline.consume",
    "method_name": "dfmeta.pipeline.consume",
    "reconstruct": "dfmeta.pipeline.consume",
    "synthesise": "dfmeta.pipeline.consume",
    "training_config": "dfmeta.pipeline.consume",
    "Compressed": "dfmeta.pipeline.compressing",
    "compress": "dfmeta.pipeline.compressing",
    "Converted": "dfmeta.pipeline.converting",
    "convert_to": "dfmeta.pipeline.converting",
    "Evaluation": "dfmeta.pipeline.evaluation",
    "evaluate": "dfmeta.pipeline.evaluation",
    "Factorized": "dfmeta.pipeline.factorizing",
    "factorize": "dfmeta.pipeline.factorizing",
    "Gathering": "dfmeta.pipeline.gathering",
    "Job": "dfmeta.pipeline.gathering",
    "make_job": "dfmeta.pipeline.gathering",
    "plan_facts": "dfmeta.pipeline.gathering",
    "Imported": "dfmeta.pipeline.importing",
    "convert_from": "dfmeta.pipeline.importing",
    "graph_inputs": "dfmeta.pipeline.inputs",
    "make_task": "dfmeta.pipeline.inputs",
    "merge": "dfmeta.pipeline.merging",
    "merge_into_shard": "dfmeta.pipeline.merging",
    "merge_with": "dfmeta.pipeline.merging",
    "load_model": "dfmeta.pipeline.model",
    "open_release": "dfmeta.pipeline.opening",
    "Pruned": "dfmeta.pipeline.pruning",
    "prune": "dfmeta.pipeline.pruning",
    "Quantized": "dfmeta.pipeline.quantizing",
    "quantize": "dfmeta.pipeline.quantizing",
    "ShardWritten": "dfmeta.pipeline.recording",
    "record": "dfmeta.pipeline.recording",
    "record_shard": "dfmeta.pipeline.recording",
    "record_with": "dfmeta.pipeline.recording",
    "Published": "dfmeta.pipeline.release",
    "Publishing": "dfmeta.pipeline.release",
    "Release": "dfmeta.pipeline.release",
    "publish": "dfmeta.pipeline.release",
    "Running": "dfmeta.pipeline.running",
    "gather": "dfmeta.pipeline.running",
    "Searched": "dfmeta.pipeline.searching",
    "search_target": "dfmeta.pipeline.searching",
    "Checked": "dfmeta.pipeline.targeting",
    "check_target": "dfmeta.pipeline.targeting",
    "DifferentialPrivacy": "dfmeta.records.privacy",
}

if TYPE_CHECKING:
    from dfmeta.pipeline.auditing import Audit, audit
    from dfmeta.pipeline.check import validate
    from dfmeta.pipeline.compressing import Compressed, compress
    from dfmeta.pipeline.consume import (
        DEFAULT_STUDENT,
        Distilled,
        distill,
        method_name,
        reconstruct,
        synthesise,
        training_config,
    )
    from dfmeta.pipeline.converting import Converted, convert_to
    from dfmeta.pipeline.evaluation import Evaluation, evaluate
    from dfmeta.pipeline.factorizing import Factorized, factorize
    from dfmeta.pipeline.gathering import Gathering, Job, make_job, plan_facts
    from dfmeta.pipeline.importing import Imported, convert_from
    from dfmeta.pipeline.inputs import graph_inputs, make_task
    from dfmeta.pipeline.merging import merge, merge_into_shard, merge_with
    from dfmeta.pipeline.model import load_model
    from dfmeta.pipeline.opening import open_release
    from dfmeta.pipeline.pruning import Pruned, prune
    from dfmeta.pipeline.quantizing import Quantized, quantize
    from dfmeta.pipeline.recording import ShardWritten, record, record_shard, record_with
    from dfmeta.pipeline.release import Published, Publishing, Release, publish
    from dfmeta.pipeline.running import Running, gather
    from dfmeta.pipeline.searching import Searched, search_target
    from dfmeta.pipeline.targeting import Checked, check_target
    from dfmeta.records.privacy import DifferentialPrivacy
else:
    __getattr__, __dir__ = exports(__name__, _HOMES)

__all__ = [
    "DEFAULT_STUDENT",
    "Audit",
    "Checked",
    "Compressed",
    "Converted",
    "DifferentialPrivacy",
    "Distilled",
    "Evaluation",
    "Factorized",
    "Gathering",
    "Imported",
    "Job",
    "Pruned",
    "Published",
    "Publishing",
    "Quantized",
    "Release",
    "Running",
    "Searched",
    "ShardWritten",
    "audit",
    "check_target",
    "compress",
    "convert_from",
    "convert_to",
    "distill",
    "evaluate",
    "factorize",
    "gather",
    "graph_inputs",
    "load_model",
    "make_job",
    "make_task",
    "merge",
    "merge_into_shard",
    "merge_with",
    "method_name",
    "open_release",
    "plan_facts",
    "prune",
    "publish",
    "quantize",
    "reconstruct",
    "record",
    "record_shard",
    "record_with",
    "search_target",
    "synthesise",
    "training_config",
    "validate",
]
