"""How well a score tells two sets of units apart, how sure that is, and when it is an alarm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
ALARM_AREA, ALARM_RATE, FALSE_RATE, CONFIDENCE = 0.6, 0.05, 0.01, 0.95
RULE = (
    f"alarm if the area under a ROC curve is above {ALARM_AREA}, or if at most {FALSE_RATE:.0%} false positives find "
    f"more than {ALARM_RATE:.0%} of the members, and more than chance explains; lower bounds are compared, at "
    f"{CONFIDENCE:.0%} confidence for all attacks together"
)


@dataclass(frozen=True, slots=True)
class Trial:
    """The scores that one attack gave.

    Attributes:
        record: the record's id, or ``all`` for the sum over a kind's records.
        kind: its kind.
        site: the site's label; empty for ``all``.
        by_class: whether the record has a row for each class.
        score: which score (see :mod:`dfmeta.records.privacy_scores`).
        members, others: ``[m]`` and ``[n]``; higher means more likely a member. NaN where a unit has no score.
    """

    record: str
    kind: str
    site: str
    by_class: bool
    score: str
    members: Scores
    others: Scores

    def seen(self) -> Trial:
        """Without the units that have no score."""
        members, others = (scores[~np.isnan(scores)] for scores in (self.members, self.others))
        return replace(self, members=members, others=others)


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack, and how well it tells members from others.

    Attributes:
        record, kind, site, by_class, score: as in :class:`Trial`.
        area, area_error, area_bound: area under the ROC curve (0.5 is chance), its standard error, its lower bound.
        rate, rate_bound: share of the members above the lowest threshold of at most 1 % false positives, its lower
            bound.
        alarm: by :data:`RULE`.
    """

    record: str
    kind: str
    site: str
    by_class: bool
    score: str
    area: float
    area_error: float
    area_bound: float
    rate: float
    rate_bound: float
    alarm: bool


@dataclass(frozen=True, slots=True)
class Curve:
    """A ROC curve: rates at every threshold, both rising from 0 to 1."""

    false_positives: Scores
    true_positives: Scores


def judged(trials: Sequence[Trial]) -> tuple[Attack, ...]:
    """Each attack's figures.

    The more attacks, the likelier that one looks strong by chance: bounds hold for all of them together (Bonferroni),
    with half of what is allowed for areas and half for rates.

    Args:
        trials: with at least two scores on each side.
    """
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * len(trials)))
    return tuple(_attack(trial, z) for trial in trials)


def strongest(attacks: Sequence[Attack]) -> tuple[Attack, ...]:
    """The attack of the largest area for each kind, in the kinds' order."""
    kinds = dict.fromkeys(attack.kind for attack in attacks)
    return tuple(max((a for a in attacks if a.kind == kind), key=lambda a: (a.area, a.rate)) for kind in kinds)


def _attack(trial: Trial, z: float) -> Attack:
    ours, theirs = trial.members, trial.others
    found, error = area(ours, theirs)
    hits, false = true_positives(ours, theirs, FALSE_RATE)
    bound, rate_bound = found - z * error, wilson(hits, len(ours), z)[0]
    chance = max(ALARM_RATE, wilson(false, len(theirs), z)[1])
    alarm = bound > ALARM_AREA or rate_bound > chance
    facts = (trial.record, trial.kind, trial.site, trial.by_class, trial.score)
    return Attack(*facts, found, error, bound, hits / len(ours), rate_bound, alarm)


def area(members: Scores, others: Scores) -> tuple[float, float]:
    """Area under the ROC curve, and its standard error.

    The area is the chance that a member scores above another unit (half for equal scores). The error is that of
    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or more correlated receiver
    operating characteristic curves", Biometrics 44(3), 1988, from the placements of each unit.

    Args:
        members: ``[m]``, at least two; higher means more likely a member.
        others: ``[n]``, at least two.
    """
    above = _placements(members, others)
    below = 1 - _placements(others, members)
    return float(above.mean()), math.sqrt(above.var(ddof=1) / len(members) + below.var(ddof=1) / len(others))


def _placements(scores: Scores, others: Scores) -> Scores:
    """The share of the others that each score is above; half a share where they are equal."""
    ordered = np.sort(others)
    found: Scores = (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2
    return found / len(others)


def true_positives(members: Scores, others: Scores, rate: float) -> tuple[int, int]:
    """Members, and others, above the lowest threshold that at most that share of the others is above.

    Args:
        members: ``[m]``.
        others: ``[n]``.
        rate: the false positive rate that is allowed, such as 0.01.
    """
    allowed = math.floor(rate * len(others))
    threshold = np.sort(others)[::-1][allowed]
    return int((members > threshold).sum()), int((others > threshold).sum())


def curve(trial: Trial) -> Curve:
    """The ROC curve of a trial."""
    thresholds = np.unique(np.concatenate([trial.members, trial.others]))[::-1]
    false, true = (
        np.concatenate([[0.0], (len(part) - np.searchsorted(np.sort(part), thresholds, "left")) / len(part)])
        for part in (trial.others, trial.members)
    )
    return Curve(false, true)


def wilson(successes: int, trials: int, z: float) -> tuple[float, float]:
    """The interval of a proportion: E. B. Wilson, JASA 22(158), 1927.

    Args:
        successes: of ``trials``.
        trials: at least one.
        z: standard normal quantile of the confidence wanted on each side.
    """
    share, square = successes / trials, z * z / trials
    middle, width = share + square / 2, z * math.sqrt(share * (1 - share) / trials + square / trials / 4)
    return max(0.0, (middle - width) / (1 + square)), min(1.0, (middle + width) / (1 + square))
