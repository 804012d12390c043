"""`dafl`: a generator whose batches the teacher finds certain, balanced over the classes, and strongly activating.

Chen et al., "Data-Free Learning of Student Networks", arXiv:1904.01186. The loss of eq. 8 is the sum of

* the one-hot loss (eq. 5): cross-entropy of the teacher's output to its own largest class;
* the activation loss (eq. 6): minus the mean absolute value of the teacher's features. These are the input of the last
  operator with weights, found in the graph;
* the information entropy loss (eq. 7): minus the entropy of the batch's mean prediction. As in the published code, its
  logarithm has the base 10.

It uses neither records (beyond the input's scale, where there is one) nor the student; but it learns along with it, one
step of the generator for each of the student. In the paper both steps are taken on one batch; here the student's batch
is drawn anew from the generator after its step, which is the same in distribution.

Where we differ from the published code: the ends of the generator (:mod:`dfmeta.synthesis._dafl_generator`), and that
the last student counts, not the best on the test set.
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
    return Dafl(task, config, "dafl", conditional=False)
