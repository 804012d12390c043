"""The pipeline floor: public functions that combine the floors below, one for each verb."""

from __future__ import annotations

from dfmeta.pipeline.check import validate
from dfmeta.pipeline.consume import DEFAULT_METHOD, Distilled, distill, open_release, reconstruct, synthesise
from dfmeta.pipeline.evaluation import Evaluation, evaluate
from dfmeta.pipeline.inputs import graph_inputs, make_task
from dfmeta.pipeline.model import load_model
from dfmeta.pipeline.release import Published, Release, publish, record

__all__ = [
    "DEFAULT_METHOD",
    "Distilled",
    "Evaluation",
    "Published",
    "Release",
    "distill",
    "evaluate",
    "graph_inputs",
    "load_model",
    "make_task",
    "open_release",
    "publish",
    "reconstruct",
    "record",
    "synthesise",
    "validate",
]
