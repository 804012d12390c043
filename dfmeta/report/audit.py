"""What an audit found, as a table and as a plot of ROC curves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from dfmeta.bundle import write_file
from dfmeta.errors import DataError, MissingExtra
from dfmeta.report.tables import columns_table
from dfmeta.report.words import clean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dfmeta.records.privacy_roc import Attack, Curve

_PIXELS_AN_INCH = 160
_NUMBERS = ("AUC", "AUC at least", "TPR at 1 % FPR", "TPR at least")
# What the logarithmic axes begin at, and the rate at which attacks are compared.
_LEAST_RATE, _FALSE_RATE = 1e-3, 0.01


def attacks_table(attacks: Sequence[Attack], title: str | None = None) -> Table:
    """One row an attack: where, which score, area under the ROC curve, share of members found at 1 % false positives.

    Args:
        attacks: in the order to show.
        title: above the table.
    """
    columns = ("kind", "record", "site", "score", *_NUMBERS, "alarm")
    rows = [
        (
            attack.kind,
            f"{attack.record} by class" if attack.by_class else attack.record,
            attack.site,
            attack.score,
            f"{attack.area:.3f} ± {attack.area_error:.3f}",
            f"{attack.area_bound:.3f}",
            f"{attack.rate:.1%}",
            f"{attack.rate_bound:.1%}",
            "alarm" if attack.alarm else "-",
        )
        for attack in attacks
    ]
    return columns_table(columns, rows, title, numbers=_NUMBERS)


def save_roc_picture(path: str | Path, attacks: Sequence[Attack], curves: Sequence[Curve]) -> Path:
    """Save ROC curves as a PNG, with false positives on a logarithmic axis: what matters is the left end.

    N. Carlini et al., "Membership inference attacks from first principles", arXiv:2112.03570, say why.

    Args:
        path: file to write; must not exist.
        attacks: what each curve is of.
        curves: as many as there are attacks.

    Raises:
        DataError: not as many curves as attacks.
        MissingExtra: matplotlib is not installed.
        OutputExists: ``path`` is taken.
    """
    if len(attacks) != len(curves):
        raise DataError("ROC curves", f"{len(curves)} of them", f"one for each of {len(attacks)} attacks")
    stream = io.BytesIO()
    # Without the drawing software's name and version the same curves are the same bytes.
    _figure(attacks, curves).savefig(stream, format="png", dpi=_PIXELS_AN_INCH, metadata={"Software": None})
    write_file(path, stream.getvalue())
    return Path(path)


def _figure(attacks: Sequence[Attack], curves: Sequence[Curve]) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plots", "a plot of the ROC curves") from error
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    chance = [_LEAST_RATE, 1.0]
    axes.plot(chance, chance, color="gray", linestyle=":", label="chance")
    axes.axvline(_FALSE_RATE, color="gray", linewidth=0.6)
    for attack, curve in zip(attacks, curves, strict=True):
        label = f"{attack.kind}: {attack.score}, AUC {attack.area:.3f}"
        # A kind may be called anything: nothing in its name is a formula.
        label = clean(label).replace("$", r"\$")
        axes.step(curve.false_positives.clip(_LEAST_RATE), curve.true_positives, where="post", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(_LEAST_RATE, 1)
    axes.set_ylim(_LEAST_RATE, 1.05)
    axes.set_xlabel("non-members taken for members")
    axes.set_ylabel("members found")
    axes.legend(loc="lower right", fontsize=8)
    return figure
