"""What a person watching a training sees: the newest line of its log as a table of families."""

from collections.abc import Mapping
from typing import Any

from polyclinic.progress import Panel
from polyclinic.train.metrics import Families

NONE = "-"
MINUTE, HOUR = 60, 3600


def panel(line: Mapping[str, Any], families: Families, seconds_left: float) -> Panel:
    """Return a line of the log for the screen; routing is that of the last sparse layer."""
    layer = next(reversed(line.get("experts", {})), None)
    machine = line["machine"]
    figures = [
        ("step", f"{line['step']:,}"),
        ("loss", f"{line['loss']:.3f}"),
        ("rate", _figure(line["learning_rate"], ".2e")),
        ("gradient", _figure(line["gradient_norm"], ".2f")),
        *([("entropy", f"{line['router_entropy'][layer]:.2f}")] if layer is not None else []),
        ("tokens/s", f"{machine['tokens_per_second']:,.0f}"),
        ("MFU", f"{100 * machine['mfu']:.1f} %"),
        ("memory", f"{machine['memory_gb']:.1f} GB"),
        ("left", duration(seconds_left)),
    ]
    if layer is None:
        return Panel(figures, ("expert", "loss", "tokens %", "family"), _rows(line, families, range(_most(line) + 1)))
    columns = ("expert", "loss", "tokens %", f"load % (layer {layer})", "own unforced %", "family")
    shares, own = line["experts"][layer], line["own_expert"][layer]
    rows = _rows(line, families, range(len(shares)))
    for expert, row in enumerate(rows):  # before the name
        row[-1:-1] = [f"{100 * shares[expert]:.1f}", _figure(own.get(str(expert)), ".1f", 100)]
    return Panel(figures, columns, rows)


def _most(line: Mapping[str, Any]) -> int:
    return max(map(int, line["families"]), default=-1)


def _rows(line: Mapping[str, Any], families: Families, experts: range) -> list[list[str]]:
    """Return number, loss, share of the tokens that carry loss, and name of each family."""
    every = sum(row["tokens"] for row in line["families"].values())
    out = []
    for expert in experts:
        row = line["families"].get(str(expert))
        figures = [NONE, NONE] if row is None else [f"{row['loss']:.3f}", f"{100 * row['tokens'] / every:.1f}"]
        out.append([str(expert), *figures, families.name(expert)])
    return out


def _figure(value: float | None, form: str, times: float = 1) -> str:
    return NONE if value is None else format(times * value, form)


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds // HOUR:.0f} h {seconds % HOUR / MINUTE:.0f} min"
