"""Section `corpus` of a recipe: what goes in, each step that is done to it, and where the work runs.

A step with a section of its own is off where the section is left out (or `null`), unless its
default says otherwise.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from polyclinic.sections import Count, Fraction, Name, NonNegative, Positive, Section


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
    similarity: Fraction = Field(0.5, description="share of 5-token shingles that near duplicates share")
    shortest: Count = Field(20, description="tokens below which a text is compared exactly only")


class DecontaminateSection(Section):
    """Training text that holds exam questions, in its own language or through a translation of it."""

    splits: list[str] = Field(["test", "dev"], description="exam splits that training text must not hold")
    unit: Literal["characters", "words"] = Field("characters", description="what is counted")
    units: Annotated[int, Field(ge=8, strict=True)] = Field(
        64, description="consecutive units that are a leak, in Latin script; others by scale"
    )
    overlap: Fraction = Field(0.8, description="share of a question in one place that is a leak")
    against: list[Source] = Field([], description="more exam files: not evaluated, or translated")


# What only the whole corpus is decided by; an input's own source stands in its own key.
_ELSEWHERE = ("root", "identifier", "engine", "workers", "mix", "pack_tokens", "packing")
_OVER_ALL = {"texts", "exams", "languages", "held_out", "validation"}
Ends = list[NonNegative | None]


class MeasuresSection(Section):
    """What is measured of a document, each with a low and a high end; null where there is none."""

    length: Ends | None = Field(None, description="words, or characters where a script puts no spaces")
    lines: Ends | None = Field(None, description="share of text in lines that were there before")
    repetition: Ends | None = Field(None, description="share of 5-word runs that were there before")
    top: Ends | None = Field(None, description="share of text that repeats the commonest run of 3 words")
    symbols: Ends | None = Field(None, description="share of signs that are no letter, digit, punctuation")
    digits: Ends | None = Field(None, description="share of digits")
    punctuation: Ends | None = Field(None, description="share of punctuation")
    terms: Ends | None = Field(None, description="share of text in medical terms")

    @model_validator(mode="after")
    def _low_and_high(self) -> Self:
        for name, ends in self.given().items():
            if len(ends) != 2:  # noqa: PLR2004
                raise ValueError(f"{name} takes two ends, [low, high], either of them null")
            low, high = ends
            if low is not None and high is not None and low > high:
                raise ValueError(f"{name}: the low end {low:g} lies above the high end {high:g}")
        return self

    def given(self) -> dict[str, Ends]:
        """Return the ends that are set, by measure."""
        return {name: value for name, value in self if value is not None}


class LimitsSection(MeasuresSection):
    """Fixed ends: what lies outside goes at once. The defaults take what no running text has."""

    lines: Ends | None = Field([None, 0.5], description="share of text in lines that were there before")
    repetition: Ends | None = Field([None, 0.5], description="share of 5-word runs that were there before")
    top: Ends | None = Field([None, 0.4], description="share of text that repeats the commonest run of 3 words")
    symbols: Ends | None = Field([None, 0.3], description="share of signs that are no letter, digit, punctuation")
    digits: Ends | None = Field([None, 0.5], description="share of digits")
    punctuation: Ends | None = Field([None, 0.5], description="share of punctuation")


class OrdinarySection(MeasuresSection):
    """Ends between which no percentile drops anything: clean data has outermost documents as well."""

    lines: Ends | None = Field([None, 0.3], description="share of text in lines that were there before")
    repetition: Ends | None = Field([None, 0.2], description="share of 5-word runs that were there before")
    top: Ends | None = Field([None, 0.2], description="share of text that repeats the commonest run of 3 words")
    symbols: Ends | None = Field([None, 0.1], description="share of signs that are no letter, digit, punctuation")
    digits: Ends | None = Field([None, 0.3], description="share of digits")
    punctuation: Ends | None = Field([None, 0.3], description="share of punctuation")


DIFFICULTY = ("perplexity", "ifd", "gap")


class PercentilesSection(MeasuresSection):
    """Ends of 0 to 100, over the documents of a language."""

    perplexity: Ends | None = Field(None, description="of the model of `difficulty`")
    ifd: Ends | None = Field(None, description="perplexity of the answers after / without the questions")
    gap: Ends | None = Field(None, description="of two models' difficulty, in deviations of a language")

    @model_validator(mode="after")
    def _of_a_hundred(self) -> Self:
        if any(end is not None and end > 100 for ends in self.given().values() for end in ends):  # noqa: PLR2004
            raise ValueError("percentiles lie between 0 and 100")
        return self


class LanguageQualitySection(Section):
    """Ends for one language; a measure named here is not looked up above."""

    limits: MeasuresSection = MeasuresSection()
    percentiles: PercentilesSection = PercentilesSection()
    ordinary: MeasuresSection = MeasuresSection()


class QualitySection(Section):
    """Documents that are too short, repetitive or odd: by fixed limits, and by percentiles of their language."""

    limits: LimitsSection = LimitsSection()
    percentiles: PercentilesSection = PercentilesSection()
    ordinary: OrdinarySection = OrdinarySection()
    per_language: dict[str, LanguageQualitySection] = Field({}, description="ends of a language, by code")
    min_words: Count = Field(50, description="a document of fewer is judged by its length alone")
    min_documents: Count = Field(100, description="a language with fewer is spared the percentiles")
    terms: str | None = Field(None, description="CSV language,term below corpus.root in place of ours")
    difficulty: str | None = Field(None, description="file of `evaluate difficulty`, below corpus.root")

    @model_validator(mode="after")
    def _difficulty_is_known(self) -> Self:
        for own in (self.percentiles, *(own.percentiles for own in self.per_language.values())):
            unknown = [name for name in own.given() if name in DIFFICULTY]
            if self.difficulty is None and unknown:
                raise ValueError(f"percentiles: {unknown[0]} needs a file of difficulty")
        return self


class MixWeights(Section):
    """Shares by name, relative to 1 for what is not named; 0 leaves it out."""

    sources: dict[str, NonNegative] = Field({}, description="by source")
    categories: dict[str, NonNegative] = Field({}, description="by category")
    languages: dict[str, NonNegative] = Field({}, description="by language, after the temperature")


class Pace(Section):
    """How often some text appears, and how early."""

    epochs: Positive = Field(1.0, description="times that it appears")
    priority: Positive = Field(1.0, description="larger comes earlier: weight in one draw over all text")


class MixSection(Section):
    """How often each training document appears, and in what order."""

    preset: Literal["apollo"] | None = Field(
        None, description="the paper's: text-derived 1 epoch, priority 16; others 2 and 2"
    )
    sources: dict[str, Pace] = Field({}, description="epochs and priority by source")
    categories: dict[str, Pace] = Field({}, description="the same by category, where no source says")
    weights: MixWeights = Field(MixWeights(), description="shares by source, category and language")
    temperature: Positive = Field(1.0, description="languages get shares n^(1/T) of their tokens n")
    tokens: Count | None = Field(None, description="of all text; what the epochs give when left out")
    family_tokens: Count | None = Field(None, description="budget of each family")
    families: dict[str, Count] = Field({}, description="the same by name of a family")
    max_epochs: Positive = Field(4.0, description="no text appears more often, whatever its budget")

    @model_validator(mode="after")
    def _within(self) -> Self:
        asked = [pace.epochs for pace in (*self.sources.values(), *self.categories.values())]
        if max([*asked, 2.0 if self.preset else 1.0]) > self.max_epochs:
            raise ValueError("max_epochs is below epochs that are asked for")
        return self


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
    licences: LicencesSection = LicencesSection()
    held_out: Fraction = Field(0.05, description="share of documents kept from training, by group")
    validation: Fraction = Field(0.0, description="share of training text kept for validate_every, by group")
    check_language: Literal["drop", "report", "off"] = Field("drop", description="text in another language")
    privacy: PrivacySection = PrivacySection()
    identifier: str = Field(
        "builtin", min_length=1, description="what checks it: builtin, `glotlid:FILE`, or a file of train-identifier"
    )
    dedup: DedupSection | None = DedupSection()
    decontaminate: DecontaminateSection | None = Field(
        DecontaminateSection(), description="exam items in training text"
    )
    quality: QualitySection | None = None
    rewrite: RewriteSection | None = None
    translate: TranslateSection | None = None
    engine: Literal["local", "ray", "slurm"] = Field("local", description="what runs the shards")
    workers: Count = Field(1, description="processes; output bytes do not depend on it")
    mix: MixSection | None = None
    pack_tokens: Annotated[int, Field(ge=16, strict=True)] = Field(256, description="tokens per pack")
    packing: Literal["best_fit", "in_order"] = Field("best_fit", description="texts whole, or end to end and cut")

    def cleaning(self) -> dict[str, object]:
        """Return all that decides the documents of a corpus, apart from what its inputs and other files hold."""
        return self._told({})

    def cleaning_alone(self) -> dict[str, object]:
        """Return what decides how an input is cleaned on its own, whatever the others hold."""
        return self._told({**dict.fromkeys(_OVER_ALL, True), "quality": {"percentiles", "ordinary", "min_documents"}})

    def _told(self, apart: dict[str, Any]) -> dict[str, object]:
        # What files hold enters keys by their digests; where they lie decides nothing.
        without: dict[str, Any] = {**dict.fromkeys(_ELSEWHERE, True), **apart}
        if self.quality is not None:
            without["quality"] = {"terms", "difficulty", *without.get("quality", ())}
        else:
            without.pop("quality", None)
        return self.model_dump(exclude=without)
