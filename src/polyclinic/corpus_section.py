"""Section `corpus` of a recipe: what goes in, each step that is done to it, and where the work runs.

A step with a section of its own is off where the section is left out (or `null`), unless its
default says otherwise.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from polyclinic.sections import Count, Fraction, Section


class Source(Section):
    """One place records come from: the starter corpus, files below `corpus.root`, or a data set of a hub."""

    starter: bool = Field(False, description="take the starter corpus that comes with the package")
    path: str | None = Field(None, description="file, glob or saved data set, relative to corpus.root")
    hub: str | None = Field(None, pattern=r"^[\w.-]+(/[\w.-]+)?$", description="data set id on the Hugging Face hub")
    hub_config: str | None = Field(None, description="which configuration of it")
    hub_split: str = Field("train", pattern=r"^[\w.-]+$", description="which split of it, whole")
    hub_revision: str | None = Field(None, description="commit or tag of it; the newest when left out")
    layout: Literal["polyclinic", "apollo", "sharegpt", "openai", "alpaca"] = Field(
        "polyclinic", description="record layout"
    )
    unit: Literal["file", "paragraph", "line"] = Field("file", description="what one document of a .txt file is")
    names: list[str] | None = Field(None, description="keep only records whose `source` is one of these")
    splits: list[str] | None = Field(None, description="keep only records whose `split` is one of these")
    languages: list[str] | None = Field(None, description="keep only these languages of the source")
    fields: dict[str, str] = Field({}, description="our field -> the file's column, where names differ")
    language: str | None = Field(None, description="language of records that name none")
    licence: str | None = Field(None, description="licence of records that name none")
    source: str | None = Field(None, description="source of records that name none")
    url: str | None = Field(None, description="address of records that name none")
    category: str | None = Field(None, description="category of records that name none")
    max_per_language: Count | None = Field(None, description="records kept per language, in file order")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if [self.starter, self.path is not None, self.hub is not None].count(True) != 1:
            raise ValueError("give one of starter: true, a path and a hub id")
        return self


class LicencesSection(Section):
    """Which licences training text may have. What is left out of the corpus is counted by licence."""

    allow: list[str] | None = Field(None, description="only these licences; all when left out")
    non_commercial: bool = Field(True, description="take what may not be used commercially (NC)")
    share_alike: bool = Field(True, description="take what asks the same licence of what is made of it (SA)")
    no_derivatives: bool = Field(True, description="take what may not be changed (ND)")
    unknown: bool = Field(True, description="take text without a licence, or with one we do not know")
    on_refusal: Literal["drop", "fail"] = Field("drop", description="what a record without a fitting licence does")


class DedupSection(Section):
    """Duplicates: exact on normalised text first, then near ones by MinHash."""

    near: bool = Field(True, description="drop near duplicates, too")


class DecontaminateSection(Section):
    """Training text that holds exam questions, in its own language or through a translation of it."""

    splits: list[str] = Field(["test", "dev"], description="exam splits that training text must not hold")
    units: Annotated[int, Field(ge=8, strict=True)] = Field(64, description="consecutive units that count as a leak")


class CorpusSection(Section):
    """Which texts and exams go in, and how they are cleaned and packed."""

    root: str = Field(".", description="folder that source paths are relative to")
    languages: list[str] | None = Field(None, description="language codes; all fifty when left out")
    texts: list[Source] = Field(min_length=1, description="training and held-out text")
    exams: list[Source] = Field([], description="multiple-choice questions, never trained on")
    on_error: Literal["fail", "count"] = Field("fail", description="a record that cannot be read")
    licences: LicencesSection = LicencesSection()
    held_out: Fraction = Field(0.05, description="share of documents kept from training, by group")
    validation: Fraction = Field(0.0, description="share of training text kept for validate_every, by group")
    check_language: Literal["drop", "report"] = Field("drop", description="text in another language")
    dedup: DedupSection | None = DedupSection()
    decontaminate: DecontaminateSection | None = Field(
        DecontaminateSection(), description="exam items in training text"
    )
    engine: Literal["local", "ray", "slurm"] = Field("local", description="what runs the shards")
    workers: Count = Field(1, description="processes; output bytes do not depend on it")
    pack_tokens: Annotated[int, Field(ge=16, strict=True)] = Field(256, description="tokens per pack")

    def cleaning(self) -> dict[str, object]:
        """Return all that decides the documents of a corpus, apart from what its inputs hold."""
        return self.model_dump(exclude={"root", "engine", "workers", "pack_tokens"})
