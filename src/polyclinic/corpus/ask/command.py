"""Translation by a program of the user's: JSON lines in on its standard input, JSON lines out, in order.

It is started once a batch, without a shell, and gets `{"id", "source_language", "language", "text"}`
for each piece; it answers each with `{"id", "text"}`. A repair carries `draft` and `faults`, too.
"""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from polyclinic.corpus.ask.translate import Job, Made, Rules, fault, improves, judged, pair_of
from polyclinic.errors import DataError, PolyclinicError


def by_command(jobs: Sequence[Job], rules: Rules) -> list[Made]:
    """Translate and repair by the command of the section."""
    command = rules.section.command or []
    drafts = _split(jobs, _run(command, [_line(job, text) for job in jobs for text in job.turns]))
    found = [rules.audit(pair_of(job, turns)) for job, turns in zip(jobs, drafts, strict=True)]
    repairs, first = [0] * len(jobs), list(drafts)
    for _ in range(rules.section.rounds):
        failing = [row for row, audit in enumerate(found) if not rules.passes(audit)]
        if not failing:
            break
        lines = [
            {**_line(jobs[row], text), "draft": draft, "faults": [fault(f)[2:] for f in found[row].findings]}
            for row in failing
            for text, draft in zip(jobs[row].turns, drafts[row], strict=True)
        ]
        again = _split([jobs[row] for row in failing], _run(command, lines))
        for row, turns in zip(failing, again, strict=True):
            repairs[row] += 1
            better = rules.audit(pair_of(jobs[row], turns))
            if improves(better, found[row]):
                drafts[row], found[row] = turns, better
    ends = zip(first, drafts, found, repairs, strict=True)
    return [judged(turns, audit, rules, n, draft) for draft, turns, audit, n in ends]


def _line(job: Job, text: str) -> dict[str, Any]:
    return {"source_language": job.source_language, "language": job.language, "text": text}


def _split(jobs: Sequence[Job], pieces: Sequence[str]) -> list[list[str]]:
    rest = iter(pieces)
    return [[next(rest) for _ in job.turns] for job in jobs]


def _run(command: Sequence[str], lines: Sequence[dict[str, Any]]) -> list[str]:
    """Run a command on lines and return its texts; raises without a word of what was translated."""
    sent = "".join(json.dumps({"id": n, **line}, ensure_ascii=False) + "\n" for n, line in enumerate(lines))
    where = f"corpus.translate.command {command[0]}"
    try:
        done = subprocess.run(  # noqa: S603 - the recipe's own command, no shell
            command, input=sent.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
    except OSError as err:
        raise DataError(where, f"cannot be started ({err.strerror})", "name an installed program") from err
    if done.returncode:
        raise PolyclinicError(where, f"ended with {done.returncode}", "run it by hand on one line")
    try:
        found = {row["id"]: row["text"] for row in map(json.loads, done.stdout.decode().splitlines()) if row}
        texts = [found[n] for n in range(len(lines))]
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(where, "its output is not a line of id and text for each input", "see docs/corpus.md") from err
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(where, "a translation is empty or no text", "see docs/corpus.md")
    return [text.strip() for text in texts]
