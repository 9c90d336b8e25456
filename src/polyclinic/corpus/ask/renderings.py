"""How translators render a term: beginnings of words that go with it, learned from good translations.

A glossary gives a form or two where translators use several. A piece of a translation renders a term
if it stands there much more often than elsewhere; pieces are taken one after the other, each by what
it explains of the translations that nothing explained before.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from polyclinic.corpus.ask.audit import Pair
from polyclinic.corpus.ask.folding import fold
from polyclinic.corpus.ask.forms import has_term, pieces, word_parts
from polyclinic.corpus.ask.glossary import Glossary

MIN_USES = 2  # of a form that is learned
SHARE = 0.1  # of the translations without a known form that hold it
EXACT = 0.3  # of the translations that hold it whose source has the term
LIFT = 4.0  # times as often as in translations at large
MOST = 5  # forms of a term


Uses = tuple[dict[str, set[int]], dict[str, set[int]]]


def uses(pairs: Sequence[Pair], glossary: Glossary) -> Uses:
    """Return the rows whose source has each term or word of a term, and those whose translation lacks its forms."""
    terms: dict[str, set[int]] = defaultdict(set)
    lacking: dict[str, set[int]] = defaultdict(set)
    for row, pair in enumerate(pairs):
        for term in glossary.find(pair.source, pair.source_language, pair.language):
            terms[term.term].add(row)
            if not has_term(term.forms, pair.target, pair.language):
                lacking[term.term].add(row)
    parts = {word for term in terms for word in word_parts(term)} - terms.keys()
    for row, pair in enumerate(pairs):
        for word in parts.intersection(fold(pair.source).split()):
            terms[word].add(row)
            lacking[word].add(row)
    return terms, lacking


class Renderings:
    """Learns from translations, all or some of them."""

    def __init__(self, pairs: Sequence[Pair], glossary: Glossary) -> None:
        self.uses, self.lacking = uses(pairs, glossary)
        self._pieces = [pieces(pair.target, pair.language) for pair in pairs]
        self._everywhere = Counter(piece for found in self._pieces for piece in found)

    def learn(self, without: Iterable[int] = ()) -> Mapping[str, tuple[str, ...]]:
        """Return for each term or word the forms that go with it, without some of the rows."""
        left_out = set(without)
        everywhere = self._everywhere - Counter(piece for row in left_out for piece in self._pieces[row])
        rows = len(self._pieces) - len(left_out)
        out = {}
        for name, lacking in self.lacking.items():
            forms = self._forms(self.uses[name] - left_out, lacking - left_out, everywhere, rows)
            if forms:
                out[name] = forms
        return out

    def _forms(self, used: set[int], lacking: set[int], everywhere: Counter[str], rows: int) -> tuple[str, ...]:
        """Take forms one after the other, each by the rows that none before explains."""
        if len(lacking) < MIN_USES:
            return ()
        inside = Counter(piece for row in used for piece in self._pieces[row])
        fitting = {
            piece for piece, n in inside.items()
            if n >= MIN_USES and n >= EXACT * everywhere[piece] and n * rows >= LIFT * everywhere[piece] * len(used)
        }  # fmt: skip
        out: list[str] = []
        left = set(lacking)
        while len(out) < MOST:
            seen = Counter(piece for row in left for piece in self._pieces[row] if piece in fitting)
            least = max(MIN_USES, SHARE * len(lacking))
            good = [(n * n / everywhere[piece], len(piece), piece) for piece, n in seen.items() if n >= least]
            if not good:
                break
            best = max(good)[2]
            out.append(best)
            left = {row for row in left if best not in self._pieces[row]}
        return tuple(out)
