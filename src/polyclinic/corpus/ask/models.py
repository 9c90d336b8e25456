"""The steps that ask a language model, made ready: prompts, glossary, store of answers, identifier.

They come after privacy and identification, so that what leaves the house is what was let through.
"""

from collections.abc import Sequence
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

from polyclinic.corpus.ask.answers import Answers
from polyclinic.corpus.ask.chat import Chat
from polyclinic.corpus.ask.command import by_command
from polyclinic.corpus.ask.glossary import Glossary, read
from polyclinic.corpus.ask.norms import read_norms
from polyclinic.corpus.ask.rewrite import check_prompts, rewrite
from polyclinic.corpus.ask.translate import Rules, Translate, by_chat, translate
from polyclinic.corpus.identify.identify import identifier
from polyclinic.corpus.step import Step
from polyclinic.corpus_section import CorpusSection, EndpointSection
from polyclinic.errors import RecipeError
from polyclinic.families import fifty
from polyclinic.languages import language
from polyclinic.runs import digest, sha256_file

TRANSLATIONS = "translations.jsonl"  # of a shard: drafts, last versions and what the audit found


def model_steps(
    section: CorpusSection, wanted: Sequence[str], answers: Path | None, folder: Path
) -> list[tuple[str, Step]]:
    """Return the steps of a section that ask a model; raises before any text is sent if one cannot be done."""
    found: list[tuple[str, Step]] = []
    any_of = tuple(dict.fromkeys((*fifty(), *wanted)))  # a model may answer in any
    told = identifier(section.identifier, any_of).verdict if section.rewrite or section.translate else None
    if section.rewrite and told:
        check_prompts(section.rewrite, wanted)
        chat = partial(_chat, section.rewrite.endpoint, answers, section.workers)
        found.append(("rewrite", partial(rewrite, chat=chat, section=section.rewrite, verdict=told)))
    if section.translate and told:
        asked = section.translate.model_copy(update={"to": [language(code).code for code in section.translate.to]})
        strange = sorted(set(asked.to) - set(wanted))
        if strange:
            raise RecipeError("corpus.translate.to", f"{', '.join(strange)} not in corpus.languages", "add it there")
        files = [Path(section.root) / name if name else None for name in (asked.glossary, asked.norms)]
        glossary = read(files[0]) if files[0] else Glossary(())
        rules = Rules(glossary, read_norms(files[1]) if files[1] else {}, told, asked)
        ready = partial(_translator, rules, answers, section.workers)
        found.append(("translate", partial(translate, section=asked, translator=ready, record=folder / TRANSLATIONS)))
    return found


def _translator(rules: Rules, answers: Path | None, workers: int) -> Translate:
    if rules.section.endpoint is None:
        return partial(by_command, rules=rules)
    return partial(by_chat, chat=_chat(rules.section.endpoint, answers, workers), rules=rules)


@cache
def _chat(section: EndpointSection, answers: Path | None, workers: int) -> Chat:
    """Return the one chat of this process with an endpoint; workers share its concurrency."""
    return Chat(section, Answers(answers), max(1, section.concurrency // workers))


def model_inputs(section: CorpusSection) -> dict[str, Any]:
    """Return digests of what these steps read besides the corpus: prompts, tables, glossary, norms."""
    if not (section.rewrite or section.translate):
        return {}
    data = resources.files("polyclinic.data")
    files = [
        file for kind in ("prompts/rewrite", "prompts/translate", "audit") for file in data.joinpath(kind).iterdir()
    ]
    found = {file.name: digest(file.read_text("utf-8")) for file in files if file.name.endswith(".yaml")}
    named = [Path(section.root) / name for name in _files(section)]
    folder = section.rewrite and section.rewrite.prompts
    named += sorted(Path(folder).glob("*.yaml")) if folder else []
    return {"package": found, "files": [sha256_file(path) for path in named if path.is_file()]}


def _files(section: CorpusSection) -> list[str]:
    asked = section.translate
    return [name for name in (asked.glossary, asked.norms) if name] if asked else []
