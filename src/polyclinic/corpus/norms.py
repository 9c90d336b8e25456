"""What is usual between two languages, learned from translations that are known to be good.

A glossary gives one form where translators use several, and a length differs by the language. What
good translations often lack must not count against others; what they have instead is learned.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from polyclinic.corpus.audit import Norms, Pair, cues, has_term, holds_any, log_ratio, strangers
from polyclinic.corpus.folding import closed, fold, unspaced
from polyclinic.corpus.glossary import Glossary, stem
from polyclinic.errors import DataError
from polyclinic.runs import read_json, write_json

PRIOR = 2.0  # uses of the average term that are added to each
MIN_USES = 2  # of a form that is learned
SHARE = 0.3  # of the translations without a known form that hold it
EXACT = 0.5  # of the translations that hold it whose source has the term
PIECES = (2, 3, 4)  # characters of a form in scripts without spaces


def learn(pairs: Sequence[Pair], glossary: Glossary) -> Norms:
    """Return what is usual in good translations, all of one pair of languages."""
    ratios = sorted(log_ratio(pair) for pair in pairs)
    uses: dict[str, list[int]] = defaultdict(list)  # where each term stands
    lacking: dict[str, list[int]] = defaultdict(list)  # and none of its forms does
    said: dict[str, list[bool]] = defaultdict(list)
    for row, pair in enumerate(pairs):
        for term in glossary.find(pair.source, pair.source_language, pair.language):
            uses[term.term].append(row)
            if not has_term(term, pair.target):
                lacking[term.term].append(row)
        found, kept = cues(pair.source, pair.source_language), cues(pair.target, pair.language)
        if found and kept is not None and len(set(found)) == 1:
            said[found[0]].append(bool(kept))
    forms = _forms(pairs, uses, lacking)
    kept_terms = {t: [r not in lost or holds_any(pairs[r].target, forms.get(t, ())) for r in rows]
                  for t, rows in uses.items() for lost in [set(lacking[t])]}  # fmt: skip
    terms, others = _shares(kept_terms)
    shares, rest = _shares(said)
    return Norms(_spread(ratios), terms, {**shares, "": rest}, others, forms, _strangers(pairs, glossary))


def _strangers(pairs: Sequence[Pair], glossary: Glossary) -> dict[str, float]:
    """Return for each form how often a good translation holds it whose source has none of its terms."""
    held: Counter[str] = Counter()
    strange: Counter[str] = Counter()
    for pair in pairs:
        held.update(glossary.find_forms(pair.target, pair.source_language, pair.language).keys())
        strange.update(strangers(pair, glossary))
    return {form: strange[form] / n for form, n in held.items()}


def _spread(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the middle and the deviation of most, which a few misplaced lines do not move."""
    if not ratios:
        return Norms().length
    middle = ratios[len(ratios) // 2]
    apart = sorted(abs(r - middle) for r in ratios)
    return middle, max(0.05, 1.4826 * apart[len(apart) // 2])  # a normal deviation is 1.4826 of the median one


def _shares(kept: dict[str, list[bool]]) -> tuple[dict[str, float], float]:
    """Return how often each was kept, drawn towards the average where it was seen seldom; and the average."""
    everything = [hit for hits in kept.values() for hit in hits]
    mean = math.fsum(everything) / len(everything) if everything else 1.0
    return {name: (sum(hits) + PRIOR * mean) / (len(hits) + PRIOR) for name, hits in kept.items()}, mean


def _forms(
    pairs: Sequence[Pair], uses: dict[str, list[int]], lacking: dict[str, list[int]]
) -> dict[str, tuple[str, ...]]:
    """Return for each term the beginnings of words that its translations hold in place of the glossary's forms."""
    pieces = [frozenset(_pieces(pair.target)) for pair in pairs]
    everywhere: Counter[str] = Counter()
    for found in pieces:
        everywhere.update(found)
    out = {}
    for term, rows in lacking.items():
        inside = Counter(piece for row in uses[term] for piece in pieces[row])
        seen = Counter(piece for row in rows for piece in pieces[row])
        good = [
            piece for piece, n in seen.items()
            if n >= MIN_USES and n >= SHARE * len(rows) and inside[piece] >= EXACT * everywhere[piece]
        ]  # fmt: skip
        if good:
            out[term] = tuple(sorted(good, key=lambda piece: (-seen[piece], piece))[:3])
    return out


def _pieces(text: str) -> Iterable[str]:
    folded = fold(text)
    joined = closed(folded)
    if not unspaced(folded):
        return (stem(word) for word in folded.split() if not word.isdigit())
    return (joined[i : i + n] for n in PIECES for i in range(len(joined) - n + 1))


def write_norms(path: Path, norms: Mapping[tuple[str, str], Norms]) -> None:
    """Write what was learned of pairs of languages."""
    write_json(path, {f"{a} {b}": norms[a, b]._asdict() for a, b in sorted(norms)})


def read_norms(path: Path) -> dict[tuple[str, str], Norms]:
    """Read what `write_norms` wrote; raises DataError if it is not that."""
    out = {}
    try:
        for pair, values in dict(read_json(path)).items():
            source, target = pair.split(" ")
            forms = {term: tuple(found) for term, found in values.pop("forms").items()}
            middle, deviation = map(float, values.pop("length"))
            out[source, target] = Norms((middle, deviation), forms=forms, **values)
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise DataError(
            path, "holds no norms of translations", "make it with `polyclinic corpus audit --learn`"
        ) from err
    return out
