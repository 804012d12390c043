"""A budget that nothing can meet, and operators that a target refuses in every candidate: what to say of it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from dfmeta.errors import StepError
from dfmeta.pipeline._candidates import BUDGETS, Candidate
from dfmeta.pipeline._target_form import TargetForm
from dfmeta.records.foreign_moments import LeftOut

_MOST_WORDS = 4
_NAMES = {"ram": "RAM", "flash": "flash"}
_OTHERWISE = "a smaller input, or another target"


def nothing_fits(form: TargetForm, candidates: Sequence[Candidate], left_out: Sequence[LeftOut]) -> StepError:
    """The error for candidates none of which fits.

    Args:
        form: of the target.
        candidates: all that were made; none of them fits.
        left_out: what could not be made.
    """
    where = f"target {form.target.name}" + (f" on {form.board}" if form.board else "")
    writable = [one for one in candidates if not one.refused]
    if not writable:
        return _refused(where, candidates, left_out)
    checked = writable[0].checked
    limits = {budget: bytes_ for budget in _NAMES if (bytes_ := getattr(checked, budget)) is not None}
    least = {budget: min(writable, key=_needs(budget)) for budget in _NAMES}
    reached = " and ".join(
        f"the smallest {_NAMES[budget]} is {_needs(budget)(one):,} bytes ({one.name})" for budget, one in least.items()
    )
    room = " and ".join(f"{bytes_:,} bytes of {_NAMES[budget]}" for budget, bytes_ in limits.items())
    binding = [budget for budget in limits if least[budget].over(budget)]
    found = f"none of {len(candidates)} candidates that fits: {reached}"
    return StepError(where, found, f"at most {room}", f"{_knob(writable, binding)} Or use {_OTHERWISE}.")


def _needs(budget: str) -> attrgetter[int]:
    return attrgetter("checked.ram_bytes" if budget == "ram" else "checked.costs.flash_bytes")


def _knob(candidates: Sequence[Candidate], binding: Sequence[str]) -> str:
    """Which budget to raise, and how far."""
    if len(binding) == 2:
        needs = " and ".join(f"--{budget} {min(map(_needs(budget), candidates))}" for budget in binding)
        return f"Both RAM and flash bind: give at least {needs}."
    if not binding:
        ways = filter(None, (_raised(budget, candidates) for budget in _NAMES))
        return f"Either can be met, but not both at once: give {', or '.join(ways)}."
    budget = binding[0]
    least = _raised(budget, candidates) or f"--{budget} {min(map(_needs(budget), candidates))} or more"
    return f"What binds is {_NAMES[budget]}: give {least}."


def _raised(budget: str, candidates: Sequence[Candidate]) -> str:
    """How much of a budget would do beside the other as it is; empty where none would."""
    other = "flash" if budget == "ram" else "ram"
    meeting = [one for one in candidates if not one.over(other)]
    if not meeting:
        return ""
    best = min(meeting, key=_needs(budget))
    return f"--{budget} {_needs(budget)(best)} or more (as {best.name} needs)"


def _refused(where: str, candidates: Sequence[Candidate], left_out: Sequence[LeftOut]) -> StepError:
    """No budget would help: which rules the candidates break, those of the first ones first."""
    rules: dict[str, list[str]] = {}
    for one in candidates:
        broken = one.checked.violations if one.checked is not None else ()
        refused = {f"{each.rule}: {each.found}" for each in broken if each.rule not in BUDGETS}
        for words in sorted(refused or {one.reason}):
            rules.setdefault(words, []).append(one.name)
    told = [f"{words} (in {', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" for words, names in rules.items()]
    more = f"; and {len(told) - _MOST_WORDS} more" if len(told) > _MOST_WORDS else ""
    if not told:
        told = ["no candidate that could be made", *(f"{one.name}: {one.reason}" for one in left_out)]
    found = "; ".join(told[:_MOST_WORDS]) + more
    return StepError(where, found, "a form that it takes", "Use another target, or export another model.")
