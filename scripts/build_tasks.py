"""Write the lm-eval tasks of the package and the table of docs/exams.md from data/exams.yaml; a developer's command.

    PYTHONPATH=src python scripts/build_tasks.py

`tests/evaluate/suite/test_taskfiles.py` fails where the files and the table part.
"""

from pathlib import Path

from polyclinic.evaluate.suite.table import HERE, Exam, exams, tasks_folder
from polyclinic.evaluate.suite.taskfiles import files

PAGE = Path(__file__).parents[1] / "docs/exams.md"
BEGIN = "<!-- exams: begin, written by scripts/build_tasks.py -->"
END = "<!-- exams: end -->"
KINDS = {
    "local": "Files below POLYCLINIC_DATA",
    "derived": "Derived from files below POLYCLINIC_DATA",
    "hub": "Loaded when asked for",
    "lm-eval": "lm-eval's own tasks",
}


def table() -> str:
    """Return the suite as Markdown, a table for each kind."""
    out = []
    for kind, heading in KINDS.items():
        out += [f"### {heading}", "", "| exam | what | languages | options | split; examples from | licence | notes |"]
        out += ["|---|---|---|---|---|---|---|"]
        out += [row(exam) for exam in exams().values() if exam.kind == kind]
        out.append("")
    return "\n".join(out).rstrip()


def row(exam: Exam) -> str:
    """Return an exam's line."""
    fewest, most = exam.options
    options = (str(most) if fewest == most else f"{fewest}-{most}") + ", several right" * exam.several
    others = f"{exam.pool} of it" if not exam.shots else ", ".join(exam.shots)
    splits = "its own" if exam.kind == "lm-eval" else f"{exam.split}; {others}"
    codes = [f"{code}\\*" if code in exam.translated else code for code in exam.languages]
    cells = (f"`{exam.name}`", what(exam), " ".join(codes), options, splits, exam.licence, notes(exam))
    return f"| {' | '.join(cells)} |"


def what(exam: Exam) -> str:
    """Return an exam's title and where it is read from."""
    place = exam.file or exam.hub or exam.github or f"{exam.tasks[0]}{', ...' * (len(exam.tasks) > 1)}"
    return f"{exam.title}: {'GitHub ' * bool(exam.github)}`{place}`"


def notes(exam: Exam) -> str:
    """Return what there is to know of an exam."""
    said = [exam.note, "of the paper" * exam.paper, f"{exam.domain}" * (exam.domain != "medicine")]
    said += [f"copy of `{exam.copy_of}`" if exam.copy_of else "", "fields not verified" * (not exam.verified)]
    said += [f"fields read in: {exam.seen}" if exam.seen else ""]
    return "; ".join(one for one in said if one)


def rewritten(text: str) -> str:
    """Return the page with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def main() -> None:
    """Write the files that are to be there, and take away those of exams that are gone."""
    made = files()
    for path in tasks_folder().glob("*/*"):
        if str(path.relative_to(tasks_folder()).as_posix()) not in made:
            path.unlink()
    for name, text in made.items():
        path = tasks_folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
    local = sum(len(exam.languages) for exam in exams().values() if exam.kind in HERE)
    print(f"{len(made)} files; {local} exams and languages are local")


if __name__ == "__main__":
    main()
