"""Audit documents that lie beside their translations: which pairs there are, and a table per language."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyclinic.corpus.ask.audit import CHECKS, NOT_CHECKED, Limits, Norms, Pair, audit
from polyclinic.corpus.ask.glossary import Glossary
from polyclinic.corpus.identify.identify import BUILTIN, identifier
from polyclinic.corpus.read.layouts import to_document
from polyclinic.corpus.read.read import read
from polyclinic.corpus_section import Source
from polyclinic.errors import DataError
from polyclinic.families import fifty

SHOWN = 20  # failing documents named per pair of languages
Key = tuple[str, str]


def parallel(source: Path, targets: Sequence[Path], only: Sequence[str] | None) -> dict[Key, list[Pair]]:
    """Join documents and translations by group; raises DataError where a file shares none with the source."""
    sources = {(d.source, d.group): d for d in read(source, _all(source, only), to_document)}
    out: dict[Key, list[Pair]] = defaultdict(list)
    for path in targets:
        before = sum(map(len, out.values()))
        for found in read(path, _all(path, only), to_document):
            told = sources.get((found.source, found.group))
            if told is not None and told.language != found.language:
                key = (told.language, found.language)
                out[key].append(Pair(*key, told.text(), found.text(), found.id))
        if sum(map(len, out.values())) == before:
            raise DataError(path, f"no document shares source and group with {source.name}", "check parallel_id")
    return dict(out)


def _all(path: Path, only: Sequence[str] | None) -> Source:
    return Source(path=str(path), names=list(only) if only else None)


def audited(
    pairs: Mapping[Key, Sequence[Pair]], glossary: Glossary, norms: Mapping[Key, Norms], reliability: float
) -> dict[str, Any]:
    """Audit all pairs; returns for each pair of languages the counts, recall, and ids of what fails."""
    verdict = identifier(BUILTIN, fifty()).verdict
    out: dict[str, Any] = {}
    for key, found in pairs.items():
        counts: Counter[str] = Counter()
        failing: dict[str, list[str]] = {}
        for pair in found:
            result = audit(pair, glossary, verdict, norms.get(key), Limits(reliability=reliability))
            counts += result.counts
            if result.findings:
                failing[pair.id] = sorted({f.check for f in result.findings})
        out[f"{key[0]} {key[1]}"] = {
            "documents": len(found),
            "failing": len(failing),
            "term_recall": _share(counts, "term"),
            "term_recall_inflected": _share(counts, "term", "term found inflected"),
            "recall_by_kind": {k: _share(counts, k) for k in sorted(counts) if _is_kind(k)},
            "failed": {name: counts[f"failed {name}"] for name in CHECKS},
            "not_checked": {name: n for name in CHECKS if (n := counts[f"{NOT_CHECKED} {name}"])},
            "first_failing": dict(list(failing.items())[:SHOWN]),
        }
    return out


def _is_kind(name: str) -> bool:
    return name.startswith("kind ") and not name.endswith(" found")


def _share(counts: Mapping[str, int], name: str, found: str | None = None) -> float | None:
    return counts[found or f"{name} found"] / counts[name] if counts[name] else None


def lines(found: Mapping[str, Any]) -> list[str]:
    """Render an audit as a table, a pair of languages a line, and the first documents that fail."""
    out = ["from to    documents  failing  term recall (inflected)  " + "  ".join(CHECKS)]
    for key, row in found.items():
        recall = " (".join("-" if v is None else f"{v:.3f}" for v in (row["term_recall"], row["term_recall_inflected"]))
        cells = [
            f"{row['failed'][name]:{len(name)}d}" if row["not_checked"].get(name, 0) < row["documents"]
            else f"{'-':>{len(name)}}" for name in CHECKS
        ]  # fmt: skip
        out.append(f"{key:10} {row['documents']:9}  {row['failing']:7}  {recall + ')':23}  " + "  ".join(cells))
    for key, row in found.items():
        out += [f"{key}: {name} fails {', '.join(checks)}" for name, checks in row["first_failing"].items()]
    return [*out, "- not checked"]
