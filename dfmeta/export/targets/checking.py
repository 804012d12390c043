"""Does a graph fit a target: every rule that it breaks, what it costs, and whether that is within a budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dfmeta.errors import GraphError
from dfmeta.export import arena
from dfmeta.export.device_costs import DeviceCosts, device_costs
from dfmeta.export.targets import profile, reading
from dfmeta.export.targets._rules import broken
from dfmeta.export.targets.facts import Facts
from dfmeta.export.targets.violation import Violation
from dfmeta.graph import Graph


@dataclass(frozen=True, slots=True)
class Checked:
    """A graph held against a target.

    Attributes:
        target: name of the target.
        board: name of the board whose budget it is; empty without one.
        ram: bytes that there are for what changes while it runs; None for no limit.
        flash: bytes that there are for constants; None for no limit.
        violations: what does not fit.
        advice: what costs speed or safety only.
        costs: None where sizes are not known.
        ram_bytes: what of the costs counts against ``ram``: the arena, or all temporaries, inputs and outputs.
    """

    target: str
    board: str
    ram: int | None
    flash: int | None
    violations: tuple[Violation, ...]
    advice: tuple[Violation, ...]
    costs: DeviceCosts | None
    ram_bytes: int | None

    @property
    def fits(self) -> bool:
        """Whether nothing is violated."""
        return not self.violations


def check(
    graph: Graph,
    target: profile.Target | str,
    *,
    ram: int | None = None,
    flash: int | None = None,
    board: str = "",
) -> Checked:
    """Hold a graph against a target.

    Args:
        graph: any.
        target: a profile, or the name of one.
        ram: bytes for everything that changes while it runs; None takes the board's, or no limit.
        flash: bytes for constants; likewise.
        board: one of the target's.

    Raises:
        UnknownName: no such target or board; the text offers a near match.
    """
    known = reading.load(target) if isinstance(target, str) else target
    place = reading.board(known, board) if board else None
    if place is not None:
        ram, flash = place.ram if ram is None else ram, place.flash if flash is None else flash
    found = list(broken(Facts(graph), known))
    try:
        plan = arena.plan(graph, element_bytes=1 if known.quantizes else None)
        costs = device_costs(graph, plan, as_int8=known.quantizes)
    except GraphError as error:
        plan, costs = None, None
        if ram is not None or flash is not None:
            found.append(Violation("costs", error.where, error.found, error.expected, error.fix))
    needed = None
    if plan is not None and costs is not None:
        needed = ram_bytes(plan, known.memory)
        source = known.sources[place.source] if place is not None else None
        found += [Violation(*one, source) for one in _over(graph, known, plan, costs, needed, ram, flash)]
    violations = tuple(one for one in found if not one.advice)
    return Checked(known.name, board, ram, flash, violations, tuple(one for one in found if one.advice), costs, needed)


def ram_bytes(plan: arena.Plan, memory: str) -> int:
    """What a plan takes of RAM.

    Args:
        plan: of the graph.
        memory: ``arena``; or ``temporaries``, with inputs and outputs, which the caller of generated C holds.
    """
    if memory == "arena":
        return plan.peak_bytes
    ends = sum(one.bytes for one in plan.buffers if one.first < 0)
    return plan.temporaries_bytes + ends


def _over(
    graph: Graph,
    target: profile.Target,
    plan: arena.Plan,
    costs: DeviceCosts,
    needed: int,
    ram: int | None,
    flash: int | None,
) -> Iterator[tuple[str, str, str, str, str]]:
    """Budgets that are not met, with what takes most."""
    if ram is not None and needed > ram:
        if target.memory == "arena":
            largest = ", ".join(f"{one.values[0]} ({one.bytes})" for one in plan.alive()[:3])
            fix = f"At the worst moment there are {largest}: use a smaller input, fewer channels, or 8 bits."
        else:
            fix = "Every value has a place of its own there: use a smaller network, or integer operators."
        yield "ram", graph.where, f"{needed} bytes of values", f"at most {ram}", fix
    if flash is not None and costs.flash_bytes > flash:
        sizes = sorted(((array.nbytes, name) for name, array in graph.initializers.items()), reverse=True)
        largest = ", ".join(f"{name} ({size})" for size, name in sizes[:3])
        fix = f"The largest are {largest}: use fewer channels, low rank, or fewer bits."
        yield "flash", graph.where, f"{costs.flash_bytes} bytes of constants", f"at most {flash}", fix
