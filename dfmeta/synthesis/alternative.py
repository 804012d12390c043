"""`alternative`: another data set of the same kind of picture, such as USPS for MNIST, labelled by the teacher.

The baseline of Chen et al., "Data-Free Learning of Student Networks", arXiv:1904.01186, table 1. Its own labels are not
looked at, since they may mean other things. Images of another size or colour are made to fit before the model's own
preprocessing.
"""

from __future__ import annotations

from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._drawn import Drawn, NoSettings

USES = ("data",)
OTHER_DATA = True
Config = NoSettings


def build(task: Task, config: NoSettings) -> Drawn:
    """The method for ``task``."""
    del config
    return Drawn(task)
