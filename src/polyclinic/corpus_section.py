"""Section `corpus` of a recipe: what goes in, each step that is done to it, and where the work runs.

A step with a section of its own is off where the section is left out (or `null`), unless its
default says otherwise.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from polyclinic.sections import Count, Fraction, Name, NonNegative, Positive, Section


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


Penalty = Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)]


class EndpointSection(Section):
    """An OpenAI-compatible endpoint, and how a model behind it is asked; sampling as in the paper."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/@?#]+[^\s@?#]*$")] = Field(
        description="text of the corpus is sent there"
    )
    model: Name = Field(description="name of the model at the endpoint")
    key_env: Name | None = Field(None, description="environment variable that holds the key")
    temperature: NonNegative = Field(0.6, description="of sampling")
    top_p: Fraction = Field(0.8, description="of sampling")
    frequency_penalty: Penalty | None = Field(0.6, description="null: not sent")
    presence_penalty: Penalty | None = Field(0.8, description="null: not sent")
    max_tokens: Count = Field(1024, description="of an answer; one that is cut off is not used")
    concurrency: Count = Field(8, description="requests at once, all workers together")
    tries: Count = Field(50, description="of a request that fails for a passing reason")
    timeout_s: Positive = Field(120.0, description="seconds until a request is cut")


class RewriteSection(Section):
    """Passages become questions and answers that a model writes; off unless given."""

    endpoint: EndpointSection
    sources: list[str] | None = Field(None, description="only records whose `source` is one of these")
    categories: list[str] | None = Field(None, description="only records whose `category` is one of these")
    prompts: str | None = Field(None, description="folder of prompt files used before the package's")
    passage_characters: Count = Field(4000, description="longer passages are cut at a sentence end")
    min_answer_characters: Count = Field(32, description="shorter answers are dropped")
    min_support: Fraction = Field(0.4, description="share of an answer's words that the passage has")


class TranslateSection(Section):
    """Documents are translated, each translation is audited and repaired; off unless given."""

    to: list[str] = Field(min_length=1, description="language codes to translate into")
    endpoint: EndpointSection | None = None
    command: list[str] | None = Field(None, description="program and arguments, in place of an endpoint")
    sources: list[str] | None = Field(None, description="only records whose `source` is one of these")
    categories: list[str] | None = Field(None, description="only records whose `category` is one of these")
    languages: list[str] | None = Field(None, description="only records in these languages")
    glossary: str | None = Field(None, description="CSV file of terms, relative to corpus.root")
    norms: str | None = Field(None, description="what is usual, of `corpus audit --learn`; likewise")
    min_term_recall: Fraction = Field(1.0, description="share of a document's terms to be found")
    reliability: Fraction = Field(0.8, description="terms that good translations keep less often are let pass")
    max_characters: Count = Field(6000, description="longer documents are not translated")
    rounds: Annotated[int, Field(ge=0, le=2, strict=True)] = Field(2, description="repairs of a failing translation")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.endpoint is None) == (self.command is None):
            raise ValueError("give either endpoint or command")
        if self.command is not None and not self.command:
            raise ValueError("command names no program")
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
    dedup: DedupSection | None = DedupSection()
    decontaminate: DecontaminateSection | None = Field(
        DecontaminateSection(), description="exam items in training text"
    )
    rewrite: RewriteSection | None = None
    translate: TranslateSection | None = None
    engine: Literal["local", "ray", "slurm"] = Field("local", description="what runs the shards")
    workers: Count = Field(1, description="processes; output bytes do not depend on it")
    pack_tokens: Annotated[int, Field(ge=16, strict=True)] = Field(256, description="tokens per pack")

    def cleaning(self) -> dict[str, object]:
        """Return all that decides the documents of a corpus, apart from what its inputs hold."""
        return self.model_dump(exclude={"root", "engine", "workers", "pack_tokens"})
