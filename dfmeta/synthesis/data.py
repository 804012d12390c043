"""`data`: real inputs, or ones that were kept from a reconstruction. What every other method is compared with."""

from __future__ import annotations

from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._drawn import Drawn, NoSettings

USES = ("data",)
Config = NoSettings


def build(task: Task, config: NoSettings) -> Drawn:
    """The method for ``task``."""
    del config
    return Drawn(task)
