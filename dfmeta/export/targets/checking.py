"""Does a graph fit a target: every rule that it breaks, what it costs, and whether that is within a budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

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
        flash: bytes that there are for constants and code; None for no limit.
        fpu: whether the core has a floating-point unit, for which code is predicted.
        violations: what does not fit.
        advice: what costs speed or safety only.
        costs: None where sizes are not known.
        ram_bytes: what of the costs counts against ``ram``: the arena, or all temporaries, inputs and outputs.
    """

    target: str
    board: str
    ram: int | None
    flash: int | None
    fpu: bool
    violations: tuple[Violation, ...]
    advice: tuple[Violation, ...]
    costs: DeviceCosts | None
    ram_bytes: int | None

    @property
    def fits(self) -> bool:
        """Whether nothing is violated."""
        return not self.violations

    def as_dict(self) -> dict[str, object]:
        """The same in JSON types."""
        facts = {name: getattr(self, name) for name in ("target", "board", "ram", "flash", "fpu", "ram_bytes")}
        costs = None if self.costs is None else asdict(self.costs)
        lists = {"violations": self.violations, "advice": self.advice}
        found = {name: [one.as_dict() for one in several] for name, several in lists.items()}
        return {"fits": self.fits, **facts, "costs": costs, **found}


def check(
    graph: Graph,
    target: profile.Target | str,
    *,
    ram: int | None = None,
    flash: int | None = None,
    board: str = "",
    fpu: bool | None = None,
) -> Checked:
    """Hold a graph against a target.

    Args:
        graph: any.
        target: a profile, or the name of one.
        ram: bytes for everything that changes while it runs; None takes the board's, or no limit.
        flash: bytes for constants, and for code where the profile predicts it; likewise.
        board: one of the target's.
        fpu: whether the core has a floating-point unit; None takes the board's word, or yes.

    Raises:
        UnknownName: no such target or board; the text offers a near match.
    """
    known = reading.load(target) if isinstance(target, str) else target
    place = reading.board(known, board) if board else None
    source = None
    if place is not None:
        source = known.sources[place.source] if ram is None and flash is None else None
        ram, flash = place.ram if ram is None else ram, place.flash if flash is None else flash
    if fpu is None:
        fpu = place is None or place.fpu
    found = list(broken(Facts(graph), known))
    code = None if known.code is None else known.code.bytes(len(graph.model.graph.node), fpu=fpu)
    try:
        plan = arena.plan(graph, element_bytes=1 if known.quantizes else None)
        costs = device_costs(graph, plan, as_int8=known.quantizes, code_bytes=code)
        needed = ram_bytes(plan, known.memory)
        found += [Violation(*one, source) for one in _over(graph, known, plan, costs, needed, ram, flash)]
    except GraphError as error:
        costs, needed = None, None
        if ram is not None or flash is not None:
            found.append(Violation("costs", error.where, error.found, error.expected, error.fix))
    violations, advice = (tuple(one for one in found if one.advice is kind) for kind in (False, True))
    return Checked(known.name, board, ram, flash, fpu, violations, advice, costs, needed)


def ram_bytes(plan: arena.Plan, memory: str) -> int:
    """What a plan takes of RAM.

    Args:
        plan: of the graph.
        memory: ``arena``; or ``temporaries``, with inputs and outputs, which the caller of generated C holds.
    """
    return plan.peak_bytes if memory == "arena" else plan.temporaries_bytes + plan.ends_bytes


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
        fix = f"The largest are {largest}: use fewer channels, low rank, or fewer bits"
        needs = f"{costs.constant_bytes} bytes of constants"
        if costs.code_bytes is not None:
            needs = f"{costs.flash_bytes} bytes, {costs.constant_bytes} of constants and {costs.code_bytes} of code"
            fix = f"{fix}; or fewer nodes, each of which is code"
        yield "flash", graph.where, needs, f"at most {flash}", f"{fix}."
