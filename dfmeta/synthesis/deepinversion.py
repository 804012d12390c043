"""`deepinversion`: images optimised pixel by pixel, until the network's features have the training data's statistics.

Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", arXiv:1912.08795, eqs. 2 to 4: from
noise, cross-entropy to a class, plus the distance of the batch's feature statistics from those of the training data,
plus total variation and the norm of the image. The paper takes the statistics from BatchNormalization; a network
without any takes them from the `moments` that its bundle records. Which ones:
:mod:`dfmeta.synthesis._feature_statistics`.

The defaults are those of the published CIFAR-10 run ("parameters from the paper"), with the weight of the norm from the
ImageNet run, because a batch's norm hardly counts in either. Shifts go two of 32 pixels each way, as there.

Where we differ from the published code: pixels are kept in the range that the preprocessing allows, after each step, as
in its ImageNet run; pixels are counted in deviations of the input from its mean
(:meth:`dfmeta.synthesis.Task.input_scale`), which the code's inputs are already; inputs that are no images are neither
moved nor smoothed; the last iterate is the result (the code's "best inputs" are the same memory as the last).
"""

from __future__ import annotations

from dfmeta.synthesis._contract import Task
from dfmeta.synthesis._inversion import Config, Inversion

__all__ = ["TRAINING", "Config", "build"]

# Of the ImageNet run; its rate and length are for that data set, and the other settings are not known.
TRAINING = {"loss": "kl", "temperature": 3.0}


def build(task: Task, config: Config) -> Inversion:
    """The method for ``task``.

    Raises:
        StepError: neither BatchNormalization nor recorded `moments`.
        DataError: a batch of one.
    """
    return Inversion(task, config, "deepinversion")
