"""The report floor: facts as people read them, in tables and pictures.

Nothing here measures anything, and nothing here imports torch: :mod:`dfmeta.report.overview` shows what a
bundle says of itself from its manifest alone.
"""

from __future__ import annotations

from dfmeta.report.overview import overview, overview_tables
from dfmeta.report.pictures import save_digits_picture
from dfmeta.report.plan import plan_facts, plan_tables
from dfmeta.report.tables import ModelRow, columns_table, facts_table, models_table
from dfmeta.report.words import clean, integer, percent, seconds, size

__all__ = [
    "ModelRow",
    "clean",
    "columns_table",
    "facts_table",
    "integer",
    "models_table",
    "overview",
    "overview_tables",
    "percent",
    "plan_facts",
    "plan_tables",
    "save_digits_picture",
    "seconds",
    "size",
]
