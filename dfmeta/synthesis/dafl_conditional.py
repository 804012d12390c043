"""`dafl-conditional`: `dafl` with a generator that is told which class to make.

The generator takes a label beside the noise (its one-hot code, as in Mirza and Osindero, "Conditional Generative
Adversarial Nets", arXiv:1411.1784), and the one-hot loss of `dafl` (arXiv:1904.01186, eq. 5) becomes the
cross-entropy to that label. In `dafl` the teacher's largest class is the target, whatever it is: nothing stops one
class from taking over but the entropy loss, with the heaviest of the weights. Here labels are drawn evenly, so every
class has inputs from the first step; the entropy loss stays, with the same weight. All else is as in `dafl`. No paper
has this exact form.
"""

from __future__ import annotations

from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._dafl import TRAINING, Config, Dafl

__all__ = ["TRAINING", "Config", "build"]


def build(task: Task, config: Config) -> Dafl:
    """The method for ``task``.

    Raises:
        DataError: a batch of one.
        StepError: a graph without a layer of weights.
    """
    return Dafl(task, config, "dafl-conditional", conditional=True)
