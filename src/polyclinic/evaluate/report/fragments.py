"""The scores as sections of a page: the means first, then each language, then what the figures rest on."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from polyclinic import figures
from polyclinic.evaluate.report.browser import browser
from polyclinic.evaluate.report.loss import loss
from polyclinic.evaluate.report.rows import interval, macro, micro, of_level, summary
from polyclinic.languages import language
from polyclinic.markup import Fragment, details, figure, native, number, percent, table
from polyclinic.runs import read_json

Result = Mapping[str, Any]
LEAD = (
    "Share of exam questions answered right. Read a score against its chance line: where the interval (95 %) covers "
    "chance, the model has not shown that it knows anything. Verdicts are corrected for the number of rows (Holm). A "
    "score no better than the best constant answer may be a model that always gives one position."
)
MEANS = "Macro is the plain mean over languages, micro the share of all questions. The verdict is on macro."
HEAD = ["accuracy", "95 % interval", "chance", "constant answer", "unparsed", "verdict"]
FEW = 10  # questions below which a row says nothing


def fragments(folder: Path) -> list[Fragment]:
    """Return the sections for a finished evaluate step."""
    result = read_json(folder / "scores.json")
    found = [scores(result)]
    if result["comparison"]:
        found.append(comparison(result))
    if any(sheet["calibration"] for sheet in result["sheets"]):
        found.append(calibration(result))
    if result["sensitivity"]:
        found.append(sensitivity(result))
    found.append(unasked(result))
    if result["sheets"]:
        found.append(browser(result, folder))
    return [*found, loss(result)] if result["loss"] else found


def scores(result: Result) -> Fragment:
    """Return means of every sheet, a picture and tables of the last model's first, and the others folded."""
    if not result["sheets"]:
        return Fragment("How well it does in each language", LEAD, "<p>No exam questions in this run.</p>")
    shown = shown_sheet(result)
    html = f"<p>{escape(summary(shown))}</p>" + table(*_means(result), text_columns=2)
    drawing, chances = drawn(shown)
    html += f'<p class="lead">{MEANS}</p>' + "".join(_as_the_paper(sheet) for sheet in result["sheets"])
    svg = figures.intervals(drawing, "share of questions answered right", chances)
    html += figure(svg, f"{shown['name']}: each language with its 95 % interval; the upright mark is chance.")
    for sheet in [shown, *(s for s in result["sheets"] if s is not shown)]:
        html += details(f"{sheet['name']}: languages", table(*languages(sheet), text_columns=2))
        html += details(f"{sheet['name']}: exams", table(*exams(sheet), text_columns=3))
        html += details(f"{sheet['name']}: families and tiers", table(*groups(sheet), text_columns=2))
    return Fragment("How well it does in each language", LEAD, html)


def shown_sheet(result: Result) -> Any:
    """Return the sheet that stands for the run: the last model's first."""
    return next(sheet for sheet in result["sheets"] if sheet["model"] == result["models"][-1])


def drawn(sheet: Result) -> tuple[dict[str, tuple[float, float, float]], dict[str, float]]:
    """Return accuracy with interval, and chance, by the English name of each language."""
    rows = {language(row["name"]).name: row for row in of_level(sheet, "language")}
    intervals = {name: (r["accuracy"], *interval(r)) for name, r in rows.items()}
    return intervals, {name: r["chance"] for name, r in rows.items()}


def _means(result: Result) -> tuple[list[str], list[list[str]]]:
    head = [
        "asked how",
        "verdict",
        "n",
        "languages",
        "macro",
        "95 % interval",
        "chance",
        "constant",
        "micro",
        "unparsed",
    ]
    rows = []
    for sheet in result["sheets"]:
        over, items = macro(sheet), micro(sheet)
        if over and items:
            cells = [percent(over["accuracy"]), _interval(over), percent(over["chance"]), percent(over["constant"])]
            cells += [percent(items["accuracy"]), percent(items["unparsed"])]
            counts = [f"{items['n']:,}", str(items["languages"])]
            rows.append([escape(sheet["name"]), escape(over["verdict"]), *counts, *cells])
    return head, rows


def _as_the_paper(sheet: Result) -> str:
    """Return the paper's own averages of a sheet that was asked as the paper asks; nothing of others."""
    found = sheet.get("paper")
    if not found:
        return ""
    majors, minors = percent(found["majors"]), percent(found["minors"])
    told = f"as the paper averages, major languages {majors} %, minor languages {minors} %. {found['unsaid']}"
    return f"<p>{escape(sheet['name'])}: {told}</p>"


def _interval(row: Result) -> str:
    return " to ".join(percent(end) for end in interval(row))


def _figures(row: Result) -> list[str]:
    score = f'<td class="figure score" style="--share:{row["accuracy"]:.3f}">{percent(row["accuracy"])}</td>'
    verdict = f"{row['verdict']}; {row['constant_verdict']}" if row["n"] >= FEW else f"fewer than {FEW} questions"
    constant = f"{percent(row['constant'])} <small>{escape(row.get('constant_answer') or '')}</small>"
    last = f'<td class="text">{escape(verdict)}</td>'
    return [score, _interval(row), percent(row["chance"]), constant, percent(row["unparsed"]), last]


def languages(sheet: Result) -> tuple[list[str], list[list[str]]]:
    """Return a table with a row per language."""
    rows = []
    for row in of_level(sheet, "language"):
        entry = language(row["name"])
        name = f"{native(entry)} <small>{escape(entry.name)}</small>"
        rows.append([entry.code, name, f"{row['n']:,}", *_figures(row)])
    return ["code", "language", "n", *HEAD], rows


def exams(sheet: Result) -> tuple[list[str], list[list[str]]]:
    """Return a table with a row per exam and language; several right answers have their own score beside it."""
    leaks = {(row["exam"], row["language"]): row for row in sheet["leaks"] or ()}
    rows = []
    for row in of_level(sheet, "exam_language"):
        entry = language(row["language"])
        hamming = f"{percent(row['hamming'])} <small>chance {percent(row['hamming_chance'])}</small>"
        cells = [hamming if row["several"] else "&ndash;", _leaked(leaks.get((row["exam"], row["language"])))]
        name = f"{native(entry)} <small>{escape(entry.name)}</small>"
        rows.append([escape(row["exam"]), entry.code, name, f"{row['n']:,}", *_figures(row), *cells])
    return ["exam", "code", "language", "n", *HEAD, "Hamming", "in the training text"], rows


def _leaked(row: Result | None) -> str:
    if row is None or not row["searched"]:
        return "not searched"
    clean = f", {percent(row['accuracy_clean'])} without" if row["leaked"] or row["translated"] else ""
    return f"{row['leaked'] + row['translated']:,} of {row['n']:,}{clean}"


def groups(sheet: Result) -> tuple[list[str], list[list[str]]]:
    """Return a table with a row per family, then per tier of text there is."""
    rows = [
        [level, escape(row["name"]), f"{row['n']:,}", *_figures(row)]
        for level in ("family", "tier")
        for row in of_level(sheet, level)
    ]
    return ["", "name", "n", *HEAD], rows


def comparison(result: Result) -> Fragment:
    """Return what the last model does better and worse than the first, question by question."""
    html = ""
    for found in result["comparison"]:
        a, b = escape(found["a"]), escape(found["b"])
        text = (
            f"{a} has more right in {found['wins']} languages, {b} in {found['losses']}, as many in {found['ties']}; "
            f"shown to be more than luck: {found['shown_wins']} and {found['shown_losses']}."
        )
        rows = [_compared(row) for row in (*found["languages"], found["macro"], found["micro"])]
        head = ["", "n", a, b, "difference", "95 % interval", "only one right", "p, corrected", "verdict"]
        html += f"<p>{text}</p>" + details(f"{found['a']} and {found['b']}", table(head, rows))
    lead = "Both models answered the same questions, so they are compared on each: McNemar's test, Holm's correction."
    return Fragment("What training changed", lead, html)


def _compared(row: Result) -> list[str]:
    won = f"{row['wins']} : {row['losses']}" if "wins" in row else "&ndash;"
    low, high, change = (f"{100 * row[key]:+.1f}" for key in ("low", "high", "difference"))
    p = row.get("holm", row.get("p"))
    verdict = f'<td class="text">{escape(row["verdict"])}</td>'
    return [escape(row["name"]), f"{row['n']:,}", percent(row["a"]), percent(row["b"]), change, f"{low} to {high}", won,
            number(p, 3), verdict]  # fmt: skip


def calibration(result: Result) -> Fragment:
    """Return whether models know when they are right."""
    rows = []
    for sheet in result["sheets"]:
        if found := sheet["calibration"]:
            cells = [percent(found["confidence"]), percent(found["accuracy"])]
            cells += [number(found[key], 3) for key in ("ece_mass", "floor_mass", "ece_width", "floor_width", "brier")]
            rows.append([escape(sheet["name"]), f"{found['n']:,}", *cells])
    head = ["asked how", "n", "mean confidence", "accuracy", "error, bins of equal mass", "its floor",
            "error, bins of equal width", "its floor", "Brier"]  # fmt: skip
    lead = (
        "The probability a model gives the answer it picks, against how often that answer is right: the calibration "
        "error is their mean distance. Its floor is what a perfectly calibrated model would show with as few items."
    )
    found = shown_sheet(result)["calibration"]
    bins = ""
    if found:
        shares = ("low", "high", "confidence", "accuracy")
        listed = [[f"{one['n']:,}", *(percent(one[key]) for key in shares)] for one in found["bins_mass"]]
        bins = details("By confidence", table(["n", "from", "to", "mean confidence", "accuracy"], listed))
    return Fragment("Does it know when it is right", lead, table(head, rows) + bins)


def sensitivity(result: Result) -> Fragment:
    """Return how much answers hang on the wording."""
    html = ""
    for name, found in result["sensitivity"].items():
        rows = []
        for row in found:
            entry = language(row["language"])
            cells = [
                number(row["index"], 3),
                f"{number(row['low'], 3)} to {number(row['high'], 3)}",
                percent(row["flipped"]),
            ]
            cells += [percent(row["accuracy"]), f"{percent(row['lowest'])} to {percent(row['highest'])}"]
            rows.append([escape(row["kind"]), entry.code, f"{native(entry)} <small>{escape(entry.name)}</small>",
                         f"{row['n']:,}", str(row["ways"]), *cells])  # fmt: skip
        head = ["varied", "code", "language", "n", "ways", "index", "95 % interval", "answers that flip", "accuracy",
                "over the ways"]  # fmt: skip
        html += details(name, table(head, rows, text_columns=3))
    lead = (
        "The same questions put in several ways that mean the same. The index (POSIX) is the mean change, in nats, of "
        "the log-probability of an answer from one way to another: 0 is a model that does not mind the wording."
    )
    return Fragment("How much hangs on the wording", lead, html)


def unasked(result: Result) -> Fragment:
    """Return what was left out, what could not be asked, and which languages have no exam."""
    rows = []
    for part in result["parts"]:
        for reason, count in part["left_out"].items():
            rows.append([escape(part["exam"]), part["language"], escape(reason), f"{count:,}", "every protocol"])
    for sheet in result["sheets"]:
        for task, reasons in sheet["unasked"].items():
            for reason, count in reasons.items():
                rows.append([escape(task), "", escape(reason), f"{count:,}", escape(sheet["name"])])
    head = ["exam", "code", "why", "questions", "where"]
    html = details("Left out, and why", table(head, rows, text_columns=3)) if rows else ""
    for what, codes in result["missing"].items():
        html += f"<p>{_MISSING[what]} {_named(codes)}.</p>"
    lead = "No score says anything about what was not asked."
    return Fragment("What was not asked", lead, html)


_MISSING = {
    "nothing": "Languages of the fifty without any question in this run:",
    "derived only": "Languages of the fifty with derived questions only (terminology, not an exam):",
}


def _named(codes: Sequence[str]) -> str:
    return ", ".join(f"{escape(language(code).name)} ({escape(code)})" for code in codes) or "none"
