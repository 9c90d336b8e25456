"""What a training says of itself: sums since the last line of the log, over all processes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyclinic.moe.watch import RouterWatch, over_processes

Rows = dict[str, dict[str, float]]


class Families(NamedTuple):
    """Who is whose: the expert of each language's family, and the names of the families by expert, if known."""

    expert_of: Mapping[str, int]
    names: Sequence[str] = ()

    def name(self, expert: int) -> str:
        """Return a family's name, or the codes of its languages."""
        codes = " ".join(code for code, other in self.expert_of.items() if other == expert)
        return self.names[expert] if expert < len(self.names) else codes


class LanguageLoss:
    """Sums of token losses per language since the last line of the log."""

    def __init__(self, languages: list[str]) -> None:
        self._languages = languages
        self._sums = torch.zeros(len(languages), 2, dtype=torch.float64)

    def add(self, losses: Tensor, language_ids: Tensor, counted: Tensor) -> None:
        """Add token losses (flat), their language ids and whether they count."""
        ids = language_ids[counted].cpu()
        values = torch.stack([losses.detach()[counted].double().cpu(), torch.ones(len(ids), dtype=torch.float64)], 1)
        self._sums.index_add_(0, ids, values)

    def take(self) -> Rows:
        """Return mean loss and tokens of each language seen by any process, and start again."""
        sums = over_processes(self._sums)
        out = {
            code: {"loss": total / count, "tokens": int(count)}
            for code, (total, count) in zip(self._languages, sums.tolist(), strict=True)
            if count
        }
        self._sums.zero_()
        return out


def family_losses(languages: Mapping[str, Mapping[str, float]], expert_of: Mapping[str, int]) -> Rows:
    """Return mean loss and tokens of each family, by the number of its expert; languages count by their tokens."""
    sums: dict[int, list[float]] = {}
    for code, row in languages.items():
        total = sums.setdefault(expert_of[code], [0.0, 0])
        total[0] += row["loss"] * row["tokens"]
        total[1] += row["tokens"]
    return {str(e): {"loss": loss / tokens, "tokens": int(tokens)} for e, (loss, tokens) in sorted(sums.items())}


def macro(rows: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean loss over languages, each counting once."""
    return sum(row["loss"] for row in rows.values()) / len(rows)


class ExpertLoads:
    """Picks per sparse layer, language and expert since the last line of the log, and what the routers tell.

    `experts`: of each language's family, in the order of `languages`.
    """

    def __init__(self, layers: list[int], languages: list[str], experts: Sequence[int] = ()) -> None:
        self._layers, self._languages = [str(layer) for layer in layers], languages
        self._sums: Tensor | None = None
        self.routers = RouterWatch(list(experts))

    def add(self, loads_LGE: Tensor) -> None:
        """Add counts (layers, languages, experts)."""
        self._sums = loads_LGE if self._sums is None else self._sums + loads_LGE

    def take(self) -> dict[str, Any]:
        """Return the shares of the experts by layer, over all and per language, and the routers' figures."""
        figures = dict(zip(self._layers, self.routers.take(), strict=False))
        if self._sums is None:
            return {}
        sums_LGE, self._sums = self._sums, None
        seen = [g for g, count in enumerate(sums_LGE.sum((0, 2)).tolist()) if count]
        by_language = {self._languages[g]: self._shares(sums_LGE[:, g]) for g in seen}
        return {
            "experts": self._shares(sums_LGE.sum(1)),
            "language_experts": by_language,
            "router_entropy": {layer: one.entropy for layer, one in figures.items()},
            "z": {layer: one.z for layer, one in figures.items()},
            "own_expert": {
                layer: {str(expert): round(share, 4) for expert, share in one.own.items()}
                for layer, one in figures.items()
            },
        }

    def _shares(self, loads_LE: Tensor) -> dict[str, list[float]]:
        shares_LE = loads_LE.double() / loads_LE.sum(-1, keepdim=True).clamp(min=1)
        rounded = [[round(share, 4) for share in row] for row in shares_LE.tolist()]
        return dict(zip(self._layers, rounded, strict=True))
