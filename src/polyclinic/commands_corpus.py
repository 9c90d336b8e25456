"""The commands of the corpus stage."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from polyclinic.commands import built_corpus, emit, not_inside
from polyclinic.errors import DataError, UnknownLanguageError, UsageError
from polyclinic.progress import Silent


def cmd_corpus_build(arguments: Namespace) -> int:
    """Build the corpus of a recipe on its own, or write the jobs that do."""
    from polyclinic.corpus.build import SHARDS, build
    from polyclinic.corpus.engine.inputs import plan_all
    from polyclinic.corpus.engine.phases import key
    from polyclinic.options import read_recipe
    from polyclinic.runs import RunFolder

    recipe = read_recipe(arguments.recipe, arguments.set)
    section, out = recipe.corpus, arguments.out
    not_inside(out, [section.root])
    if section.engine == "slurm":
        return _prepare(arguments, section)
    planned = plan_all(section)
    with RunFolder.open(out) as run, _progress(arguments) as progress:

        def work(folder: Path) -> dict[str, Any]:
            progress.stage("corpus", "reading and cleaning text")
            return build(section, folder, progress, out / SHARDS, planned)

        run.step("corpus", key(section, planned), work)
    return _built(arguments)


def _progress(arguments: Namespace) -> Any:
    """Return what shows progress, to be entered; nothing where one JSON value is asked for."""
    from contextlib import nullcontext

    from polyclinic.console import ConsoleProgress

    return nullcontext(Silent()) if arguments.json else ConsoleProgress(sys.stderr)


def _built(arguments: Namespace) -> int:
    card = arguments.out / "corpus" / "card.md"
    return emit(arguments, {"card": str(card)}, [f"card     {card}"])


def _prepare(arguments: Namespace, section: Any) -> int:
    """Write the plan and the scripts of Slurm."""
    from polyclinic.corpus.build import SHARDS
    from polyclinic.corpus.engine.slurm import prepare
    from polyclinic.runs import RunFolder

    words = [sys.executable, "-m", "polyclinic.cli", "corpus", "shard", str(arguments.recipe)]
    words += ["--out", str(arguments.out)] + [word for value in arguments.set for word in ("--set", value)]
    with RunFolder.open(arguments.out):
        script = prepare(section, arguments.out, arguments.out / SHARDS, words)
    return emit(arguments, {"submit": str(script)}, [f"jobs     {script.parent}", f"submit   sh {script}"])


def cmd_corpus_shard(arguments: Namespace) -> int:
    """Do one job of a planned corpus: some shards of a phase, or the end of it."""
    from polyclinic.corpus.build import SHARDS
    from polyclinic.corpus.engine import slurm
    from polyclinic.corpus.engine.inputs import PLAN, read_plan
    from polyclinic.corpus.engine.phases import key
    from polyclinic.options import read_recipe
    from polyclinic.runs import RunFolder

    if arguments.index >= arguments.of:
        raise UsageError("--index", f"{arguments.index} is not below --of {arguments.of}", "count from 0")
    section, place = read_recipe(arguments.recipe, arguments.set).corpus, arguments.out / SHARDS
    with _progress(arguments) as progress:
        progress.stage("corpus", arguments.phase)
        if arguments.phase != slurm.FINISH:
            slurm.shard(section, place, arguments.phase, arguments.index, arguments.of, progress)
            return emit(arguments, {"phase": arguments.phase, "index": arguments.index}, [])
        with RunFolder.open(arguments.out) as run:
            inputs = key(section, read_plan(place / PLAN, section))
            run.step("corpus", inputs, lambda folder: slurm.finish(section, place, folder, progress))
    return _built(arguments)


def cmd_corpus_mix(arguments: Namespace) -> int:
    """Print what the mixture of a recipe makes of a built corpus; nothing is written."""
    from polyclinic.corpus.build import read_documents
    from polyclinic.corpus.engine.inputs import wanted_languages
    from polyclinic.corpus.pack import mix_table, mixture
    from polyclinic.corpus.pack.pack import load_tokenizer
    from polyclinic.families import load_preset
    from polyclinic.options import read_recipe

    recipe = read_recipe(arguments.recipe, arguments.set)
    section, preset = recipe.corpus.mix, load_preset(recipe.upcycle.families)
    mix = mixture.mixing(section, preset, wanted_languages(recipe.corpus))
    corpus = built_corpus(arguments.corpus)
    mixture.check_names(section, *mixture.names(corpus))
    folder = arguments.tokenizer or _tokenizer_of(arguments.corpus)
    training = (document for document in read_documents(corpus) if document.split == "train")
    vocabulary = load_tokenizer(folder) if folder else None
    with _progress(arguments) as progress:
        rows = mix_table.dry_run(training, vocabulary, mix, preset.expert_of, recipe.seed, progress)
    unit, families = "tokens" if vocabulary else "characters", [family.name for family in preset.families]
    tables = {axis: [line._asdict() for line in mix_table.table(rows, axis, families)] for axis in mix_table.AXES}
    return emit(arguments, {"unit": unit, **tables}, mix_table.as_text(rows, families, unit))


def _tokenizer_of(run: Path) -> Path | None:
    """Return the vocabulary of a run, if it has one."""
    folder = run / "tokenizer"
    return folder if (folder / "tokenizer.json").is_file() else None


def cmd_corpus_audit(arguments: Namespace) -> int:
    """Audit translations that lie beside their sources, and learn from them if asked."""
    from polyclinic.corpus.ask.glossary import Glossary, read
    from polyclinic.corpus.ask.norms import read_norms
    from polyclinic.corpus.ask.parallel import audited, lines, parallel

    pairs = parallel(arguments.source, arguments.target, arguments.only)
    glossary = read(arguments.glossary) if arguments.glossary else Glossary(())
    if arguments.learn is not None:
        from polyclinic.corpus.ask.norms import learn, write_norms

        learned = {key: learn(found, glossary) for key, found in pairs.items()}
        write_norms(arguments.learn, learned)
        return emit(arguments, {"norms": str(arguments.learn)}, [f"norms    {arguments.learn}"])
    norms = read_norms(arguments.norms) if arguments.norms else {}
    found = audited(pairs, glossary, norms, arguments.reliability)
    return emit(arguments, found, lines(found))


def cmd_train_identifier(arguments: Namespace) -> int:
    """Train a language identifier on text whose languages are known."""
    if arguments.out.exists():
        raise UsageError(arguments.out, "exists already", "name a new file")

    from polyclinic.corpus.identify.train_identifier import hold_out, train
    from polyclinic.corpus.read.layouts import to_document
    from polyclinic.corpus.read.read import read
    from polyclinic.corpus_section import Source
    from polyclinic.languages import language

    asked = arguments.languages.split(",") if arguments.languages else []
    only = [language(code, where="--languages").code for code in asked] or None
    files = sorted(p for kind in ("*.jsonl", "*.parquet") for p in arguments.text.glob(kind))
    if not files:
        raise DataError(arguments.text, "no .jsonl or .parquet file in it", "name a folder of records")
    found = (d for p in files for d in read(p, Source(path=p.name, languages=only), to_document))
    documents, _ = hold_out(found, arguments.held_out)
    with _progress(arguments) as progress:
        progress.stage("train", "a language identifier")
        model = train(documents, progress, arguments.windows, arguments.seed)
    model.save(arguments.out)
    value = {"file": str(arguments.out), "languages": list(model.labels), "documents": len(documents)}
    return emit(arguments, value, [f"{arguments.out}  {len(model.labels)} languages, {len(documents)} documents"])


def cmd_corpus_inspect(arguments: Namespace) -> int:
    """Print a data card, or what was kept and dropped of one language."""
    from polyclinic.runs import read_json

    corpus = built_corpus(arguments.folder)
    if arguments.language is None:
        return emit(arguments, read_json(corpus / "card.json"), [(corpus / "card.md").read_text("utf-8")])
    from polyclinic.corpus.card.inspect import inspect, lines
    from polyclinic.languages import language

    try:
        asked = language(arguments.language)
    except UnknownLanguageError as err:  # it stands on the command line
        raise UsageError("--language", err.what, err.try_) from err
    found = inspect(corpus, asked.code)
    return emit(arguments, found, lines(found, _width()))


def _width() -> int:
    """Return the columns of the terminal, or of a page where there is none."""
    import shutil

    return shutil.get_terminal_size((100, 24)).columns
