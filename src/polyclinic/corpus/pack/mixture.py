"""How often each document appears in the training text, and in what order.

A group is what shares source, category and language. Each group gets a number of epochs from the
recipe: its own, times weights, bent by a temperature over languages (arXiv 1907.05019: share ~
n^(1/T)), cut to budgets. A fraction of an epoch is a part of its documents. The order is one
weighted draw without replacement over all appearances, as the paper's (arXiv 2410.10626), made by
dividing exponential draws by priorities (Efraimidis and Spirakis, 2006).
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyclinic.corpus_section import MixSection, Pace
from polyclinic.errors import RecipeError
from polyclinic.families import Preset, expert_called
from polyclinic.languages import language
from polyclinic.runs import read_json

WHERE = "corpus.mix"
Reals = NDArray[np.float64]

# Text rewritten as question and answer comes early and once; exams, dialogues and the rest twice, and late.
_DERIVED = r"(?:book|guideline|paper|web|wiki|encyclop)"
_APOLLO = (re.compile(rf"(?:medical)?{_DERIVED}", re.IGNORECASE), re.compile(rf"medical{_DERIVED}", re.IGNORECASE))
_EARLY, _LATE = Pace(epochs=1.0, priority=16.0), Pace(epochs=2.0, priority=2.0)


class Group(NamedTuple):
    """What shares an origin, a kind and a language."""

    source: str
    category: str
    language: str


class Mixing(NamedTuple):
    """A section, checked, with the budget in tokens of each expert that has one."""

    section: MixSection
    budgets: Mapping[int, int]


class Drawn(NamedTuple):
    """Document numbers in the order of training; a row of facts for each group; whether the order means something."""

    stream: NDArray[np.int64]
    rows: list[dict[str, Any]]
    ordered: bool


def mixing(section: MixSection | None, preset: Preset, languages: Sequence[str]) -> Mixing | None:
    """Check the languages and families that a section names; raises RecipeError naming the nearest."""
    if section is None:
        return None
    _known(
        "languages", [language(code, where=f"{WHERE}.weights").code for code in section.weights.languages], languages
    )
    names = [family.name for family in preset.families]
    experts = {code: preset.expert_of(code) for code in languages}
    budgets = dict.fromkeys(range(len(names)), section.family_tokens) if section.family_tokens else {}
    named = {expert_called(n, names, experts, f"{WHERE}.families"): budget for n, budget in section.families.items()}
    return Mixing(section, {**budgets, **named})


def check_names(section: MixSection | None, sources: Sequence[str], categories: Sequence[str]) -> None:
    """Raise RecipeError where a section names a source or category that the corpus does not have."""
    if section is not None:
        _known("sources", [*section.weights.sources, *section.sources], sources)
        _known("categories", [*section.weights.categories, *section.categories], categories)


def names(corpus: Path) -> tuple[list[str], list[str]]:
    """Return the sources and categories of a built corpus, from its card."""
    card = read_json(corpus / "card.json")
    return [row["source"] for row in card["sources"]], [row["category"] for row in card.get("categories", ())]


def _known(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            shown = ", ".join(sorted(filter(None, known))[:8]) or "none"
            try_ = f"did you mean '{near[0]}'?" if near else f"the corpus has {shown}"
            raise RecipeError(WHERE, f"{what} names '{name}', which the corpus does not have", try_)


def pace(section: MixSection, group: Group) -> Pace:
    """Return the epochs and priority of a group: of its source, else of its category, else of the preset."""
    found = section.sources.get(group.source) or section.categories.get(group.category)
    if found is not None:
        return found
    if section.preset is None:
        return Pace()
    derived = any(form.match(name) for form, name in zip(_APOLLO, (group.category, group.source), strict=True))
    return _EARLY if derived else _LATE


def epochs(mix: Mixing, groups: Sequence[Group], experts: Sequence[int], tokens: Reals) -> Reals:
    """Return how often each group is to appear; raises RecipeError where that leaves nothing."""
    section, weights = mix.section, mix.section.weights
    own = np.array([pace(section, g).epochs for g in groups])
    kinds = [weights.sources.get(g.source, 1.0) * weights.categories.get(g.category, 1.0) for g in groups]
    by_code = {language(code).code: weight for code, weight in weights.languages.items()}
    codes, of = np.unique([g.language for g in groups], return_inverse=True)
    amounts = tokens * own * np.array(kinds)
    totals = np.bincount(of, weights=amounts)
    bend = np.divide(totals ** (1 / section.temperature), totals, out=np.zeros_like(totals), where=totals > 0)
    amounts = amounts * bend[of] * np.array([by_code.get(str(code), 1.0) for code in codes])[of]
    if not amounts.any():
        raise RecipeError(
            WHERE, "its weights sum to 0 and leave no text", "give some source and language a weight above 0"
        )
    wanted = np.zeros_like(amounts)
    limits = np.where(amounts > 0, tokens * section.max_epochs, 0.0)
    number = np.array(experts)
    free = ~np.isin(number, list(mix.budgets))
    for expert, budget in mix.budgets.items():
        wanted += fill(np.where(number == expert, amounts, 0.0), limits, budget)
    total = float((tokens * own)[free & (amounts > 0)].sum())
    if section.tokens is not None:
        total = max(0.0, section.tokens - sum(b for e, b in mix.budgets.items() if (number == e).any()))
    wanted += fill(np.where(free, amounts, 0.0), limits, total)
    times = np.divide(wanted, tokens, out=np.zeros_like(wanted), where=tokens > 0)
    whole = np.rint(times)
    return np.asarray(np.where(np.abs(times - whole) < 1e-9 * (1 + whole), whole, times))


def fill(amounts: Reals, limits: Reals, budget: float) -> Reals:
    """Scale amounts to a sum; what would pass its limit stops there, and the others take its share."""
    out, is_open = np.zeros_like(amounts), amounts > 0
    while is_open.any():
        scale = max(0.0, budget - float(out.sum())) / float(amounts[is_open].sum())
        over = is_open & (amounts * scale > limits)
        if not over.any():
            out[is_open] = amounts[is_open] * scale
            break
        out[over] = limits[over]
        is_open &= ~over
    return out


def draw(
    mix: Mixing | None,
    groups: Sequence[Group],
    experts: Sequence[int],
    group_of: NDArray[np.int32],
    lengths: NDArray[np.int32],
    seed: int,
) -> Drawn:
    """Draw the training text from documents of some groups and lengths; without a mix each appears once."""
    tokens = np.bincount(group_of, weights=lengths, minlength=len(groups)).astype(np.float64)
    times = np.ones(len(groups)) if mix is None else epochs(mix, groups, experts, tokens)
    priority = np.array([1.0 if mix is None else pace(mix.section, g).priority for g in groups])
    copies = appearances(times, group_of, lengths, seed)
    stream = np.repeat(np.arange(len(lengths)), copies)
    keys = np.random.default_rng([seed, 1]).standard_exponential(len(stream)) / priority[group_of[stream]]
    documents = np.bincount(group_of, minlength=len(groups))
    appear = np.bincount(group_of, weights=copies, minlength=len(groups))
    packed = np.bincount(group_of, weights=copies * lengths.astype(np.int64), minlength=len(groups))
    rows = [
        {**g._asdict(), "expert": e, "documents": int(n), "tokens": int(t), "appearances": int(a), "packed": int(p)}
        for g, e, n, t, a, p in zip(groups, experts, documents, tokens, appear, packed, strict=True)
    ]
    used = priority[appear > 0]
    return Drawn(stream[np.argsort(keys, kind="stable")], sorted(rows, key=_order), bool((used != used[:1]).any()))


def _order(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["source"], row["category"], row["language"]


def appearances(times: Reals, group_of: NDArray[np.int32], lengths: NDArray[np.int32], seed: int) -> NDArray[np.int64]:
    """Return how often each document appears, so that each group has its epochs in tokens.

    The documents of a fraction are the first of an order that depends on the seed alone: more
    epochs keep what fewer had.
    """
    order = np.lexsort((np.random.default_rng([seed, 0]).random(len(lengths)), group_of))
    sizes, groups = lengths[order].astype(np.float64), group_of[order]
    ends = np.cumsum(sizes)
    totals = np.bincount(groups, weights=sizes, minlength=len(times))
    before = ends - sizes - (np.cumsum(totals) - totals)[groups]
    target = (times - np.floor(times)) * totals
    copies = np.empty(len(lengths), dtype=np.int64)
    copies[order] = np.floor(times).astype(np.int64)[groups] + (before + sizes / 2 < target[groups])
    return copies
