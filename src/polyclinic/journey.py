"""`run`: walk the stages of a recipe, skip what is finished, join the fragments into one report.

Each step names everything that decides its output; the run folder does it again only if that
changed. Stages are imported when their step runs, so that a finished run costs no torch.
"""

import shutil
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from polyclinic.baselines import applied
from polyclinic.corpus import build as corpus
from polyclinic.corpus.engine.inputs import plan, plan_all, wanted_languages
from polyclinic.corpus.engine.phases import key as corpus_key
from polyclinic.corpus.pack import mixture
from polyclinic.corpus.pack import pack as packing
from polyclinic.corpus.tables import read_rows
from polyclinic.evaluate import parts
from polyclinic.evaluate.statistics.leak_flags import leaks_of
from polyclinic.families import Preset, load_preset
from polyclinic.progress import Progress
from polyclinic.recipe import AblateSection, MoeTrainingSection, Recipe, TrainingSection
from polyclinic.records import Question, held_out
from polyclinic.runs import (
    MANIFEST,
    RunFolder,
    finished_base,
    read_json,
    sha256_file,
    weight_digests,
    write_bytes,
    write_json,
)
from polyclinic.train.choices import check_has_text, check_installed, check_routers_learn, chosen_expert
from polyclinic.train.reporters import check_reporters
from polyclinic.upcycle.plan import check_routing, experts_of, proof_line, sparse_layers
from polyclinic.versions import versions

REPORT = "report.html"


class Summary(NamedTuple):
    """What a finished run says on the screen."""

    lines: list[str]
    report: Path
    did: list[str]  # steps that were done in this call


class Journey:
    """One walk of a recipe through a locked run folder."""

    def __init__(self, recipe: Recipe, run: RunFolder, progress: Progress) -> None:
        self._recipe, self._run, self._progress = recipe, run, progress
        self._versions = versions()
        self._preset = load_preset(recipe.upcycle.families)
        self._experts = recipe.baseline != "dense"
        self._names: list[str] = []  # steps of this recipe, in order
        self._did: list[str] = []
        self._trained = "train"  # the step that leaves what is analysed and evaluated

    def walk(self) -> Summary:
        """Do every step that is not finished, then write report and manifest."""
        self.corpus()
        self.tokenizer()
        self.pack("packed", "all")
        self.base()
        if self._recipe.ablate is not None:
            self.ablate(self._recipe.ablate)
            return self.report()
        if self._experts:
            self.upcycle()
        self.train()
        self.specialise()
        if self._experts:
            self.analyse()
        self.evaluate()
        return self.report()

    def _folder(self, name: str) -> Path:
        return self._run.path / name

    def _key(self, *names: str) -> dict[str, str]:
        """Return the keys of finished steps, which stand for their outputs."""
        return {name: str(self._run.manifest(name)["key"]) for name in names}

    def _step(self, name: str, what: str, inputs: Mapping[str, Any], work: Any) -> None:
        """Do a step unless it is finished."""

        def announced(folder: Path) -> Mapping[str, Any]:
            self._progress.stage(name, what)
            return dict(work(folder))

        self._names.append(name)
        everything = {"step": name, "versions": self._versions, "seed": self._recipe.seed, **inputs}
        if self._run.step(name, everything, announced):
            self._did.append(name)

    def corpus(self) -> None:
        """Clean the texts and collect the exams."""
        section = self._recipe.corpus
        planned = plan_all(section)

        def work(folder: Path) -> Mapping[str, Any]:
            return corpus.build(section, folder, self._progress, self._run.path / corpus.SHARDS, planned)

        self._step("corpus", "reading and cleaning text", corpus_key(section, planned), work)

    def _parent(self) -> Path | None:
        """Return the folder of a base that is not trained here, or None."""
        base = self._recipe.base
        if base.run is not None:
            return finished_base(base.run)
        if base.checkpoint is not None:
            if Path(base.checkpoint).is_dir():  # a finished run costs no torch
                return Path(base.checkpoint)
            from polyclinic.moe.checkpoint import resolve

            return resolve(base.checkpoint)
        return None

    @cached_property
    def _parent_key(self) -> dict[str, str]:
        """Digests of a ready parent's weights and vocabulary; read once, they can be many gigabytes."""
        parent = self._parent()
        return {} if parent is None else weight_digests(parent)

    def tokenizer(self) -> None:
        """Train a vocabulary, or take the parent's."""
        scratch = self._recipe.base.from_scratch
        vocab_size = scratch.vocab_size if scratch else None
        key = {"vocab_size": vocab_size, "parent": self._parent_key, **self._key("corpus")}

        def work(folder: Path) -> Mapping[str, Any]:
            parent = self._parent()
            if parent is not None:
                for path in parent.glob("*token*.json"):
                    shutil.copyfile(path, folder / path.name)
                return {"from": "parent"}
            from polyclinic.train.base import train_tokenizer

            train_tokenizer((d.text() for d in self._documents("train")), int(vocab_size or 0), folder)
            return {"from": "corpus"}

        self._step("tokenizer", "learning the vocabulary", key, work)

    def _documents(self, split: str) -> Iterator[Any]:
        return (d for d in corpus.read_documents(self._folder("corpus")) if d.split == split)

    def pack(self, name: str, loss_on: packing.LossOn, split: str = "train", expert: int | None = None) -> None:
        """Tokenise and pack the documents of a split, all or those of one expert's languages."""
        section = self._recipe.corpus
        mixed = section.mix if split == "train" else None
        key = {
            "pack_tokens": section.pack_tokens,
            "packing": section.packing,
            "mix": mixed and mixed.model_dump(),
            "loss_on": loss_on,
            "split": split,
            "families": _preset_facts(self._preset),
            **self._key("corpus", "tokenizer"),
            **({} if expert is None else {"expert": expert}),
        }
        place = self._preset.expert_of

        def work(folder: Path) -> Mapping[str, Any]:
            tokenizer, specials = packing.load_tokenizer(self._folder("tokenizer"))
            mixture.check_names(mixed, *mixture.names(self._folder("corpus")))
            mix = mixture.mixing(mixed, self._preset, wanted_languages(section))
            options = packing.Packing(section.pack_tokens, loss_on, self._recipe.seed, section.packing, mix)
            documents = (d for d in self._documents(split) if expert in (None, place(d.language)))
            return packing.pack(documents, tokenizer, specials, place, folder, options, self._progress)

        self._step(name, "cutting text into packs", key, work)

    def _validation(self, section: TrainingSection | None, name: str, loss_on: packing.LossOn) -> list[str]:
        """Pack the validation text as `name` was, where a training asks for it; returns the step's name, if any."""
        if section is None or section.validate_every is None:
            return []
        step = f"{name}-validation"
        if step not in self._names:
            self.pack(step, loss_on, "validation")
        return [step]

    def base(self) -> None:
        """Train the dense parent, or note where it lies."""
        section = self._recipe.base
        aside = self._validation(section.from_scratch, "packed", "all")
        key = {"base": section.model_dump(), "parent": self._parent_key, **self._key("packed", "tokenizer", *aside)}

        def work(folder: Path) -> Mapping[str, Any]:
            parent = self._parent()
            if section.from_scratch is None or parent is not None:
                path = str(parent and parent.resolve())
                write_json(folder / "parent.json", {"path": path})
                return {"parent": path}
            from polyclinic.train.run import train_base

            paths = (self._folder("tokenizer"), self._folder("packed"))
            length = self._recipe.corpus.pack_tokens
            held = self._folder(aside[0]) if aside else None
            return train_base(section.from_scratch, *paths, length, folder, self._recipe.seed, self._progress, held)

        self._step("base", "training the dense base", key, work)

    def _dense(self) -> Path:
        return self._parent() or self._folder("base")

    def upcycle(self) -> None:
        """Build the mixture and prove it."""
        section = self._recipe.upcycle
        languages = wanted_languages(self._recipe.corpus)
        key = {"upcycle": section.model_dump(), "families": _preset_facts(self._preset), "languages": languages}

        def work(folder: Path) -> Mapping[str, Any]:
            from polyclinic.upcycle.build import build

            texts = self._texts() if section.router_init == "centroid" else None
            facts = build(self._dense(), folder, section, languages, self._recipe.seed, texts)
            self._progress.say(proof_line(facts))
            return facts

        self._step("upcycle", "building and proving the mixture", {**key, **self._key("base")}, work)

    def _texts(self) -> dict[str, list[str]]:
        """Return the training text of each language, for the rows of a router."""
        texts: dict[str, list[str]] = {}
        for document in self._documents("train"):
            texts.setdefault(document.language, []).append(document.text())
        return texts

    def train(self) -> None:
        """Train the mixture with its families known, or the dense parent alike."""
        section = self._recipe.train
        name = "packed"
        if section.loss_on != "all":
            name = "packed-answers"
            self.pack(name, section.loss_on)
        aside = self._validation(section, name, section.loss_on)

        def work(folder: Path) -> Mapping[str, Any]:
            from polyclinic.train.run import train_dense, train_mixture

            begin = self._folder("upcycle") if self._experts else self._dense()
            fit = train_mixture if self._experts else train_dense
            held = self._folder(aside[0]) if aside else None
            return fit(section, begin, self._folder(name), folder, self._recipe.seed, self._progress, held)

        before, what = ("upcycle", "the family experts") if self._experts else ("base", "the dense base further")
        key = {"train": section.model_dump(), **self._key(before, name, *aside)}
        self._step("train", f"training {what}", key, work)

    def specialise(self) -> None:
        """Train each family's expert alone on its own text, and join them."""
        section = self._recipe.specialise
        if section is None:
            return
        served = set(read_json(self._folder("packed") / packing.META)["expert_of"].values())
        names = []
        for expert in sorted(served):
            packed, name = f"packed-specialise-{expert}", f"specialise-{expert}"
            self.pack(packed, section.loss_on, expert=expert)
            self._specialise_one(name, packed, section.of(self._preset.families[expert].name))
            names.append(name)

        def work(folder: Path) -> Mapping[str, Any]:
            from polyclinic.train.stages import join

            for expert, family in enumerate(self._preset.families):
                if expert not in served:
                    self._progress.say(f"no text for {family.name}: expert {expert} stays as train left it")
            return join(self._folder("train"), [self._folder(name) for name in names], folder)

        self._step("specialise", "joining the experts", self._key("train", *names), work)
        self._trained = "specialise"

    def _specialise_one(self, name: str, packed: str, section: MoeTrainingSection) -> None:
        def work(folder: Path) -> Mapping[str, Any]:
            from polyclinic.train.run import train_expert

            paths = (self._folder("train"), self._folder(packed))
            return train_expert(section, *paths, folder, self._recipe.seed, self._progress)

        what = f"training the expert of {section.family} alone"
        self._step(name, what, {"specialise": section.model_dump(), **self._key("train", packed)}, work)

    def ablate(self, section: AblateSection) -> None:
        """Tune the base on parts of the text, each in a step of its own, and compare."""
        from polyclinic import ablation

        documents = list(corpus.read_documents(self._folder("corpus")))
        parts = ablation.parts(section, (d for d in documents if d.split == "train"))
        places = ablation.Places(self._dense(), self._folder("tokenizer"))
        loop = {"train": self._recipe.train.model_dump(), "scored": section.max_documents_per_language}
        for part in parts:
            key = {"part": part, **loop, **self._key("corpus", "tokenizer", "packed", "base")}
            measure = partial(ablation.measure, self._recipe, part, places, documents, self._preset.expert_of)
            what = f"what is {part.told()} worth"
            self._step(part.step(), what, key, partial(measure, progress=self._progress))
        measured = {part: self._folder(part.step()) for part in parts}
        key = {"ablate": section.model_dump(), **self._key(*(part.step() for part in parts))}

        def work(folder: Path) -> Mapping[str, Any]:
            facts = ablation.compare(self._recipe, measured, folder)
            ablation.enter(folder, self._folder("corpus"), self._folder("packed"), self._preset)
            return facts

        self._step("ablate", "comparing", key, work)

    def analyse(self) -> None:
        """Route held-out text through the trained mixture."""
        section = self._recipe.analyse

        def work(folder: Path) -> Mapping[str, Any]:
            from polyclinic.analyse.run import run

            documents = held_out(corpus.read_documents(self._folder("corpus")), section.max_documents_per_language)
            return run(section, self._folder(self._trained), documents, folder, self._recipe.seed, self._progress)

        key = {"analyse": section.model_dump(), **self._key(self._trained, "corpus")}
        self._step("analyse", "watching the routing", key, work)

    def evaluate(self) -> None:
        """Score base and mixture on exams and held-out text."""
        section, built = self._recipe.evaluate, self._folder("corpus")

        def work(folder: Path) -> Mapping[str, Any]:
            from polyclinic.evaluate import opening
            from polyclinic.evaluate.run import losses, run

            trained = self._folder(self._trained)
            models = {"base": self._dense(), "mixture" if self._experts else "dense": trained}
            asked = opening.all_local(models, section, self._run.path / opening.ANSWERS)
            given = (opening.family_of(trained), leaks_of(built), losses(section, models, corpus.read_documents(built)))
            return run(section, asked, exams, folder, self._progress, *given)

        questions = (Question.from_row(r) for r in read_rows(built / "questions.parquet"))
        exams = [*parts.of_corpus(questions), *parts.of_suite(section.tasks, section.languages)]
        key = {"evaluate": section.model_dump(), "exams": parts.key(exams)}
        self._step("evaluate", "asking the exams", {**key, **self._key("base", self._trained, "corpus")}, work)

    def report(self) -> Summary:
        """Join the fragments, write the run's manifest, and sum up in five lines."""
        from polyclinic import summary

        facts = {name: self._run.manifest(name)["facts"] for name in self._names}
        html, lines = summary.report(self._recipe, self._run.path, facts)
        path = self._run.path / REPORT
        if self._did or not path.is_file() or path.read_text("utf-8") != html:
            write_bytes(path, html.encode())
        self._seal()
        return Summary([*lines, f"report   {path}"], path, self._did)

    def _seal(self) -> None:
        """Write the manifest of the run: recipe, versions, and a digest of every step and the report."""
        manifest = {
            "recipe": self._recipe.model_dump(),
            "versions": self._versions,
            "steps": {name: sha256_file(self._folder(name) / MANIFEST) for name in self._names},
            "report": sha256_file(self._run.path / REPORT),
        }
        path = self._run.path / MANIFEST
        if self._did or not path.is_file() or read_json(path) != manifest:
            write_json(path, manifest)


def _preset_facts(preset: Preset) -> list[tuple[str, tuple[str, ...]]]:
    return [(f.name, f.languages) for f in preset.families]


def check(recipe: Recipe) -> None:
    """Find what would fail later: presets, languages and inputs; raises the error it would raise."""
    recipe = applied(recipe)
    section = recipe.corpus
    wanted = wanted_languages(section)
    preset = experts_of(recipe.upcycle)
    check_routing(recipe.upcycle, recipe.train.routing)
    check_reporters(
        [*recipe.train.report_to, *(recipe.base.from_scratch.report_to if recipe.base.from_scratch else ())]
    )
    if recipe.base.from_scratch is not None:
        sparse_layers(recipe.upcycle, recipe.base.from_scratch.num_layers, recipe.seed)
    expert_of = {code: preset.expert_of(code) for code in wanted}
    expert = chosen_expert(recipe.train, {f.name: f.languages for f in preset.families}, expert_of)
    check_has_text(recipe.train, expert, expert_of.values())
    check_routers_learn(recipe.train, recipe.upcycle.top_k, recipe.upcycle.norm_topk_prob)
    mixture.mixing(section.mix, preset, wanted)
    plan(section, section.texts)
    plan(section, section.exams)


def run(recipe: Recipe, out: Path, progress: Progress) -> Summary:
    """Walk a recipe in a run folder; what is finished and unchanged is not done again."""
    recipe = applied(recipe)
    check(recipe)
    check_installed(recipe.train)
    with RunFolder.open(out) as folder:
        return Journey(recipe, folder, progress).walk()
