"""The commands of the corpus that say what would become of it."""

import sys
from argparse import Namespace
from pathlib import Path

from polyclinic.commands import built_corpus, emit


def cmd_corpus_mix(arguments: Namespace) -> int:
    """Print what the mixture of a recipe makes of a built corpus; nothing is written."""
    from polyclinic.console import ConsoleProgress
    from polyclinic.corpus import mix_table, mixture
    from polyclinic.corpus.build import read_documents
    from polyclinic.corpus.inputs import wanted_languages
    from polyclinic.corpus.pack import load_tokenizer
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
    progress = ConsoleProgress(sys.stderr)
    rows = mix_table.dry_run(training, vocabulary, mix, preset.expert_of, recipe.seed, progress)
    unit, families = "tokens" if vocabulary else "characters", [family.name for family in preset.families]
    tables = {axis: [line._asdict() for line in mix_table.table(rows, axis, families)] for axis in mix_table.AXES}
    return emit(arguments, {"unit": unit, **tables}, mix_table.as_text(rows, families, unit))


def _tokenizer_of(run: Path) -> Path | None:
    """Return the vocabulary of a run, if it has one."""
    folder = run / "tokenizer"
    return folder if (folder / "tokenizer.json").is_file() else None
