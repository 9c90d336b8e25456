"""What is usual between two languages, learned from translations that are known to be good.

A glossary gives one form where translators use several, and a length differs by the language. What
good translations often lack must not count against others; what they have instead is learned.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from polyclinic.corpus.ask.audit import Norms, Pair, cues, kept, log_ratio, strangers
from polyclinic.corpus.ask.glossary import Glossary
from polyclinic.corpus.ask.renderings import Renderings
from polyclinic.errors import DataError
from polyclinic.runs import read_json, write_json

PRIOR = 2.0  # uses of the average term that are added to each
FOLDS = 5


def learn(pairs: Sequence[Pair], glossary: Glossary) -> Norms:
    """Return what is usual in good translations, all of one pair of languages."""
    ratios = sorted(log_ratio(pair) for pair in pairs)
    said: dict[str, list[bool]] = defaultdict(list)
    for pair in pairs:
        found, still = cues(pair.source, pair.source_language), cues(pair.target, pair.language)
        if found and still is not None and len(set(found)) == 1:
            said[found[0]].append(bool(still))
    renderings = Renderings(pairs, glossary)
    terms, others = _shares(*_kept(pairs, glossary, renderings))
    shares, rest = _shares(said)
    strange = _strangers(pairs, glossary)
    return Norms(_spread(ratios), terms, {**shares, "": rest}, others, renderings.learn(), strange)


def _kept(
    pairs: Sequence[Pair], glossary: Glossary, renderings: Renderings
) -> tuple[dict[str, list[bool]], list[bool]]:
    """Return for each use of a term whether it is kept, by forms learned of other pairs; and the uses of new terms.

    A term is new where the others have it nowhere, as one is that is met later for the first time.
    """
    out: dict[str, list[bool]] = defaultdict(list)
    new = []
    for part in range(FOLDS):  # neighbours are often of one document: the folds are blocks
        block = set(range(part * len(pairs) // FOLDS, (part + 1) * len(pairs) // FOLDS))
        forms = renderings.learn(without=block) if block else {}
        for pair in (pairs[row] for row in sorted(block)):
            for term in glossary.find(pair.source, pair.source_language, pair.language):
                hit = kept(term, pair, glossary, forms)
                out[term.term].append(hit)
                if renderings.uses[term.term] <= block:
                    new.append(hit)
    return out, new


def _strangers(pairs: Sequence[Pair], glossary: Glossary) -> dict[str, float]:
    """Return for each form how often a good translation holds it whose source has none of its terms."""
    held: Counter[str] = Counter()
    strange: Counter[str] = Counter()
    for pair in pairs:
        held.update(glossary.find_forms(pair.target, pair.source_language, pair.language).keys())
        strange.update(strangers(pair, glossary))
    mean = math.fsum(strange[form] / n for form, n in held.items()) / max(1, len(held))
    return {"": mean} | {form: (strange[form] + PRIOR * mean) / (n + PRIOR) for form, n in held.items()}


def _spread(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the middle and the deviation of most, which a few misplaced lines do not move."""
    if not ratios:
        return Norms().length
    middle = ratios[len(ratios) // 2]
    apart = sorted(abs(r - middle) for r in ratios)
    return middle, max(0.05, 1.4826 * apart[len(apart) // 2])  # a normal deviation is 1.4826 of the median one


def _shares(kept: Mapping[str, Sequence[bool]], new: Sequence[bool] = ()) -> tuple[dict[str, float], float]:
    """Return how often each was kept, drawn towards the average where it was seen seldom; and the average.

    The average is of what was new, if anything was: the common terms say little of it.
    """
    everything = list(new) or [hit for hits in kept.values() for hit in hits]
    mean = math.fsum(everything) / len(everything) if everything else 1.0
    return {name: (sum(hits) + PRIOR * mean) / (len(hits) + PRIOR) for name, hits in kept.items()}, mean


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
