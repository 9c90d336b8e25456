"""What the commands of the analyse stage do."""

import sys
from argparse import Namespace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from polyclinic.commands import built_corpus, emit, not_inside
from polyclinic.errors import DataError

REPORT = "report.html"


def cmd_analyse_run(arguments: Namespace) -> int:
    """Route text through a mixture: of a folder, of the starter corpus, or what a built corpus holds out."""
    inputs = [arguments.checkpoint, arguments.corpus, arguments.text, arguments.checkpoints]
    not_inside(arguments.out, [str(path) for path in inputs if path])

    from polyclinic.analyse.asked import Asked
    from polyclinic.analyse.run import run
    from polyclinic.console import ConsoleProgress
    from polyclinic.moe.checkpoint import resolve
    from polyclinic.recipe import AnalyseSection
    from polyclinic.runs import RunFolder, read_json, weight_digests

    section, checkpoint = AnalyseSection(), resolve(str(arguments.checkpoint))
    documents, source = _to_route(arguments, section.max_documents_per_language)
    steps = _training_steps(arguments.checkpoints)
    asked = Asked(
        arguments.languages, arguments.documents, arguments.forced, arguments.tokens, steps, arguments.causal or 0
    )
    named = {**asked._asdict(), "languages": sorted(asked.languages), "checkpoints": [name for name, _ in steps]}
    key = {"analyse": section.model_dump(), "asked": named, "text": source, **weight_digests(checkpoint)}
    progress = ConsoleProgress(sys.stderr)
    with RunFolder.open(arguments.out) as folder:
        folder.step("analyse", key, lambda f: run(section, checkpoint, documents, f, 0, progress, asked))
    result = read_json(arguments.out / "analyse" / "routing.json")
    lines = [
        f"layer {r['layer']}   information {r['estimate'] - r['null']:.3f} nats above chance (p {r['p_value']:.3f})"
        for r in result["information"]["first_pick"]["I(E;L)"]["layers"]
    ]
    report = _page(arguments, result)
    return emit(arguments, result, [*lines, f"report   {report}"])


def _page(arguments: Namespace, result: Any) -> Path:
    """Write the page of an analysis, and its figures beside it."""
    from polyclinic.analyse.report.fragments import FIGURES, cards, parts
    from polyclinic.analyse.report.plates import fragments_of, write_files
    from polyclinic.page import routes_page
    from polyclinic.runs import write_bytes

    found = parts(arguments.out / "analyse")
    settings = {"checkpoint": str(arguments.checkpoint), "family_ids": result["family_ids"], "seed": result["seed"]}
    html = routes_page("routing", cards(result), fragments_of(found), {**settings, "shuffles": result["shuffles"]})
    write_files(found, arguments.out / FIGURES)
    write_bytes(arguments.out / REPORT, html.encode())
    return Path(arguments.out / REPORT)


def cmd_analyse_compare(arguments: Namespace) -> int:
    """Put two analyses of the same text side by side."""
    not_inside(arguments.out, [str(arguments.a), str(arguments.b)])

    from polyclinic.analyse.report.compare import compare, parts, read_analysis
    from polyclinic.analyse.report.fragments import FIGURES
    from polyclinic.analyse.report.plates import fragments_of, write_files
    from polyclinic.page import routes_page
    from polyclinic.runs import write_bytes, write_json

    a, b = read_analysis(arguments.a), read_analysis(arguments.b)
    result = compare(a, b, (str(arguments.a), str(arguments.b)))
    found = parts(a, b, result)
    arguments.out.mkdir(exist_ok=True)
    write_files(found, arguments.out / FIGURES)
    write_json(arguments.out / "comparison.json", result)
    named = {"A": str(arguments.a), "B": str(arguments.b)}
    shown = [(key, escape(path)) for key, path in named.items()]
    html = routes_page("two routings", shown, fragments_of(found), named)
    write_bytes(arguments.out / REPORT, html.encode())
    lines = [f"A  {result['a']['depth']}", f"B  {result['b']['depth']}", f"report   {arguments.out / REPORT}"]
    return emit(arguments, result, lines)


def _to_route(arguments: Namespace, cap: int) -> tuple[Any, Any]:
    """Return documents that can be read more than once, and what tells them from others."""
    from polyclinic.analyse.texts import Folder
    from polyclinic.corpus import starter
    from polyclinic.corpus.build import read_documents
    from polyclinic.records import held_out
    from polyclinic.runs import MANIFEST, sha256_file

    if arguments.text:
        folder = Folder(arguments.text, arguments.languages)
        return folder, {str(path.relative_to(arguments.text)): sha256_file(path) for path in folder.files}
    if arguments.starter:
        documents, source = list(starter.documents()), starter.version()
    else:
        corpus = built_corpus(arguments.corpus)
        documents, source = held_out(read_documents(corpus), arguments.documents or cap), sha256_file(corpus / MANIFEST)
    return [d for d in documents if not arguments.languages or d.language in arguments.languages], source


def _training_steps(folder: Path | None) -> list[tuple[str, Any]]:
    """Return the checkpoints of a training by name, each with what loads it into a model."""
    if folder is None:
        return []
    from polyclinic.train.checkpoint import load_weights

    steps = sorted(path for path in folder.glob("step-*") if path.is_dir())
    if len(steps) < 2:  # noqa: PLR2004
        raise DataError(folder, "holds fewer than two checkpoints (step-*)", "name the checkpoints of a training")
    return [(path.name, partial(load_weights, path)) for path in steps]


def cmd_analyse_depth(arguments: Namespace) -> int:
    """Measure how apart languages are in each layer of a dense model, and recommend where to place experts."""
    not_inside(arguments.out, [str(arguments.checkpoint), str(arguments.text)])

    from polyclinic.analyse.depth.run import RESULT, lines, run
    from polyclinic.analyse.texts import Folder
    from polyclinic.console import ConsoleProgress
    from polyclinic.runs import RunFolder, read_json, sha256_file, weight_digests

    text = Folder(arguments.text, arguments.languages)
    key = {
        **{"documents": arguments.documents, "seed": arguments.seed, "languages": arguments.languages},
        "depth": weight_digests(arguments.checkpoint),
        "text": {str(path.relative_to(arguments.text)): sha256_file(path) for path in text.files},
    }
    progress = ConsoleProgress(sys.stderr)
    with RunFolder.open(arguments.out) as folder:
        folder.step(
            "depth",
            key,
            lambda f: run(arguments.checkpoint, text, f, progress, arguments.documents, seed=arguments.seed),
        )
    result = read_json(arguments.out / "depth" / RESULT)
    return emit(arguments, result, lines(result))
