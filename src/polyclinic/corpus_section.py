"""Section `corpus` of a recipe: what goes in, each step that is done to it, and where the work runs.

A step with a section of its own is off where the section is left out (or `null`), unless its
default says otherwise.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from polyclinic.sections import Count, Fraction, Section


class Source(Section):
    """One place records come from: the package's starter corpus, or files below `corpus.root`."""

    starter: bool = Field(False, description="take the starter corpus that comes with the package")
    path: str | None = Field(None, description="file or glob, relative to corpus.root")
    names: list[str] | None = Field(None, description="keep only records whose `source` is one of these")
    splits: list[str] | None = Field(None, description="keep only records whose `split` is one of these")
    languages: list[str] | None = Field(None, description="keep only these languages of the source")
    fields: dict[str, str] = Field({}, description="our field -> the file's column, where names differ")
    max_per_language: Count | None = Field(None, description="records kept per language, in file order")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.starter == (self.path is not None):
            raise ValueError("give either starter: true or a path")
        return self


class DedupSection(Section):
    """Duplicates: exact on normalised text first, then near ones by MinHash."""

    near: bool = Field(True, description="drop near duplicates, too")


class DecontaminateSection(Section):
    """Training text that holds exam questions, in its own language or through a translation of it."""

    splits: list[str] = Field(["test", "dev"], description="exam splits that training text must not hold")
    units: Annotated[int, Field(ge=8, strict=True)] = Field(64, description="consecutive units that count as a leak")


# What a text may hold that points at a person; how each is found is in data/privacy.yaml.
PRIVATE = (
    *("BANK_ACCOUNT", "BIRTH_DATE", "CARD", "CARE_DATE", "DEVICE", "DRIVING_LICENCE", "EMAIL", "HANDLE", "HEALTH_ID"),
    *("IP", "NATIONAL_ID", "PASSPORT", "PHONE", "PRACTITIONER", "PROFILE_URL", "RECORD", "SOCIAL_SECURITY"),
    *("SPECIMEN", "TAX_ID", "VEHICLE"),
)


class PrivacySection(Section):
    """Numbers, dates and addresses that point at a person; names of persons are not looked for."""

    mode: Literal["redact", "drop", "refuse", "off"] = Field("redact", description="what is done to a find")
    classes: list[str] | None = Field(None, description="kinds that are looked for; all twenty when left out")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if unknown := sorted(set(self.classes or ()) - set(PRIVATE)):
            raise ValueError(f"no such class: {', '.join(unknown)}; there are {', '.join(PRIVATE)}")
        return self


class CorpusSection(Section):
    """Which texts and exams go in, and how they are cleaned and packed."""

    root: str = Field(".", description="folder that source paths are relative to")
    languages: list[str] | None = Field(None, description="language codes; all fifty when left out")
    texts: list[Source] = Field(min_length=1, description="training and held-out text")
    exams: list[Source] = Field([], description="multiple-choice questions, never trained on")
    on_error: Literal["fail", "count"] = Field("fail", description="a record that cannot be read")
    held_out: Fraction = Field(0.05, description="share of documents kept from training, by group")
    validation: Fraction = Field(0.0, description="share of training text kept for validate_every, by group")
    check_language: Literal["drop", "report"] = Field("drop", description="text in another language")
    privacy: PrivacySection = PrivacySection()
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
