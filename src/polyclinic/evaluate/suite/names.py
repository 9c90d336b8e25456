"""What a list of names and languages chooses of the table."""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

from polyclinic.errors import UnknownLanguageError, UsageError
from polyclinic.evaluate.suite.table import HERE, Exam, exams
from polyclinic.languages import language

Pair = tuple[Exam, str]
SETS: dict[str, Callable[[Exam], bool]] = {
    "all": lambda exam: exam.kind != "lm-eval",
    "all-local": lambda exam: exam.kind in HERE,
    "paper": lambda exam: exam.paper,
}


def chosen(names: Sequence[str], languages: Iterable[str] | None = None) -> list[Pair]:
    """Return exams with their languages, each once and in the order of the table.

    A name is `all`, `all-local` (what POLYCLINIC_DATA holds), `paper`, an exam, or EXAM_LANGUAGE.
    Raises UsageError naming the nearest for what is unknown, and where nothing is left.
    """
    wanted = None if languages is None else set(codes(languages))
    pairs = [(exam, code) for exam in exams().values() for code in exam.languages]
    named = {pair for name in names for pair in _named(name, [(e.name, c) for e, c in pairs])}
    out = [(e, c) for e, c in pairs if (e.name, c) in named and (wanted is None or c in wanted)]
    if not out:
        what = f"no exam in {', '.join(sorted(wanted)) if wanted else 'any language'}"
        raise UsageError(",".join(names) or "exams", what, "see polyclinic evaluate list")
    return out


def _named(name: str, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs that one name means."""
    if name in SETS:
        return [(exam, code) for exam, code in pairs if SETS[name](exams()[exam])]
    if name in exams():
        return [pair for pair in pairs if pair[0] == name]
    whole = {f"{exam}_{code}": (exam, code) for exam, code in pairs}
    if name in whole:
        return [whole[name]]
    own = [code for exam, code in pairs if name.startswith(f"{exam}_")]
    near = get_close_matches(name.lower(), [*SETS, *exams(), *whole], n=3, cutoff=0.5)
    try_ = f"did you mean {', '.join(near)}?" if near else "see polyclinic evaluate list"
    what = f"there is no exam '{name}'" + (f"; it has {', '.join(own)}" if own else "")
    raise UsageError("exams", what, try_)


def codes(given: Iterable[str]) -> list[str]:
    """Return languages' own codes; what was named stands on a command line."""
    try:
        return [language(one).code for one in given]
    except UnknownLanguageError as err:
        raise UsageError(err.where, err.what, err.try_) from err
