"""A recipe: every choice of a run as one strict, frozen value.

A recipe file is YAML (read by `strict_yaml`), with `${NAME}` taken from the environment and dotted
overrides from the command line. Unknown keys are errors that name the nearest known key; the
resolved recipe is written into every run folder.
"""

import difflib
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from polyclinic import strict_yaml
from polyclinic.corpus_section import CorpusSection
from polyclinic.errors import RecipeError, UsageError
from polyclinic.sections import Count, Fraction, Name, NameOrNumber, NonNegative, Positive, Section

Kind = TypeVar("Kind", bound=BaseModel)
Place = Literal["last", "first", "random", "all"]
Baseline = Literal["none", "dense", "one", "two", "total", "first", "random", "every"]
RoutingName = Literal["topk", "hybrid", "language"]
ProtocolName = Literal["letter", "option", "generate", "chain", "paper"]
LossOn = Literal["all", "answers"]
# Not the feed-forward part of dense layers: peft 0.21 takes its names, in a mixture, for the experts'.
LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "experts", "router"]
ALIGNED = 8  # of widths: the stock product of experts takes rows of whole 16 bytes, in bf16 eight numbers


class TrainingSection(Section):
    """One training loop: how long, how fast, how often saved."""

    steps: Count | None = Field(None, description="optimiser steps")
    tokens: Count | None = Field(None, description="or tokens, padding included")
    epochs: Positive | None = Field(None, description="or passes over all packs")
    batch_packs: Count = Field(4, description="packs that a process computes at a time")
    accumulate: Count = Field(1, description="such batches whose gradients make one step, over all processes")
    parallel: Literal["ddp", "fsdp", "experts"] = Field("ddp", description="of several processes; see train.md")
    learning_rate: Positive = Field(1e-3, description="peak rate of AdamW")
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0, strict=True)] = 0
    final_rate: Fraction = Field(0.0, description="share of the peak rate at the end; not for constant")
    decay_share: Fraction = Field(0.1, description="share of the steps in which wsd falls")
    weight_decay: NonNegative = 0.1
    max_gradient_norm: Positive = 1.0
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of products; weights and AdamW stay in fp32")
    gradient_checkpointing: bool = Field(False, description="layers computed again for gradients: less memory")
    save_every: Count = Field(50, description="steps between checkpoints")
    keep: Count = Field(2, description="newest checkpoints that stay while it trains")
    log_every: Count = Field(10, description="steps between lines of the log")
    validate_every: Count | None = Field(None, description="steps between losses on corpus.validation")
    keep_best: bool = Field(False, description="publish the step with the lowest such loss, not the last")
    report_to: list[Literal["tensorboard", "trackio", "wandb"]] = Field([], description="curves for these, too")
    threads: Count | None = Field(None, description="CPU threads; all cores when left out")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if [self.steps, self.tokens, self.epochs].count(None) != 2:  # noqa: PLR2004 - one of three is given
            raise ValueError("give exactly one of steps, tokens, epochs")
        if self.keep_best and self.validate_every is None:
            raise ValueError("keep_best needs validate_every")
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} leaves none of {self.steps} steps for the rest")
        return self


class ScratchSection(TrainingSection):
    """A small Qwen3-shaped decoder and its byte-level BPE, trained on the corpus."""

    vocab_size: Annotated[int, Field(ge=300, strict=True)] = 4096
    hidden_size: Count = 192
    intermediate_size: Count = 512
    num_layers: Count = 6
    num_heads: Count = 6
    num_kv_heads: Count = 2

    @model_validator(mode="after")
    def _shape_holds(self) -> Self:
        if self.hidden_size % self.num_heads or self.num_heads % self.num_kv_heads:
            raise ValueError("num_heads must divide hidden_size, and num_kv_heads must divide num_heads")
        if self.hidden_size // self.num_heads % 2:
            raise ValueError("rotary embeddings turn pairs: hidden_size / num_heads must be even")
        return self


class BaseSection(Section):
    """The dense parent: trained here, read from a folder or hub id, or taken from a finished run."""

    from_scratch: ScratchSection | None = None
    checkpoint: Name | None = Field(None, description="folder or hub id of a model upcycle.md lists")
    run: Name | None = Field(None, description="folder of a finished run whose base is used again")

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        given = [v for v in (self.from_scratch, self.checkpoint, self.run) if v is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of from_scratch, checkpoint, run")
        return self


class UpcycleSection(Section):
    """Where the experts go, who they are for, and how they and their routers begin."""

    families: Name = Field("balanced", description="preset name or path of a families file")
    num_experts: Count | None = Field(None, description="checked against the preset's number")
    place: Place = Field("last", description="of the sparse layers; random by seed")
    last_layers: Count | None = Field(None, description="how many there are, at any place; 2 if left out")
    layers: list[Annotated[int, Field(ge=0, strict=True)]] | None = Field(
        None, description="or these layers, counted from 0"
    )
    top_k: Count = Field(2, description="experts per token")
    norm_topk_prob: bool = Field(True, description="whether the picks' weights sum to 1")
    shared_expert: Literal["none", "zero", "copy"] = Field("none", description="one for every token; see upcycle.md")
    router_init: Literal["random", "zero", "centroid"] = Field("random", description="how router rows begin")
    noise: NonNegative = Field(0.0, description="noise on expert copies, a share of their std")
    reinit: Fraction = Field(0.0, description="share of inner units drawn again")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.layers is not None and self.last_layers is not None:
            raise ValueError("give last_layers or layers, not both")
        if self.place != "last" and self.layers is not None:
            raise ValueError(f"give layers or place {self.place}, not both")
        if self.place == "all" and self.last_layers is not None:
            raise ValueError("place all makes every layer sparse: leave last_layers out")
        if self.layers is not None and (not self.layers or len(set(self.layers)) < len(self.layers)):
            raise ValueError("layers must name one layer or more, each once")
        if self.noise and self.reinit:
            raise ValueError("give noise or reinit, not both")
        return self


class LoraSection(Section):
    """Adapters of low rank (LoRA, arXiv 2106.09685), merged into the weights at the end."""

    rank: Count = Field(8, description="of each adapter; of each expert's where experts are targets")
    alpha: Positive = Field(16.0, description="adapters count alpha / rank")
    dropout: Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)] = Field(
        0.0, description="on their inputs; of linear modules only"
    )
    targets: list[LoraTarget] = Field(["experts"], min_length=1, description="on what")

    @model_validator(mode="after")
    def _targets_hold(self) -> Self:
        if len(set(self.targets)) < len(self.targets):
            raise ValueError("targets must name each once")
        fused = [target for target in self.targets if target in ("experts", "router")]
        if self.dropout and fused:
            raise ValueError(f"dropout reaches linear modules only, and targets name {fused[0]}")
        return self


class MoeTrainingSection(TrainingSection):
    """Training of the mixture: the loop, and the routing while it runs."""

    routing: RoutingName = Field("hybrid", description="routing during training")
    loss_on: LossOn = Field("all", description="which tokens carry loss")
    load_balance: NonNegative = Field(0.0, description="weight of the load-balance loss of each layer")
    z_loss: NonNegative = Field(0.0, description="weight of the router z-loss of each layer")
    bias_balance: NonNegative = Field(0.0, description="step of the balancing bias; it fades before the end")
    trains: Literal["all", "sparse", "experts", "router"] = Field("all", description="the rest stays as it is")
    family: NameOrNumber | None = Field(None, description="only its expert; name, language or number")
    lora: LoraSection | None = None

    @property
    def balances(self) -> bool:
        """Say whether anything is asked of the balance of experts."""
        return bool(self.load_balance or self.z_loss or self.bias_balance)

    @model_validator(mode="after")
    def _something_trains(self) -> Self:
        if self.routing == "language" and self.balances:
            raise ValueError("routing language trains no router, so there is nothing to balance")
        if self.routing == "language" and self.trains == "router":
            raise ValueError("trains router beside routing language, which trains no router: nothing would train")
        if self.trains == "experts" and self.balances:
            raise ValueError("trains experts leaves the routers as they are, so there is nothing to balance")
        if self.family is not None and self.trains != "experts":
            raise ValueError(f"family trains one expert alone, and trains says {self.trains}: add trains: experts")
        return self

    @model_validator(mode="after")
    def _adapters_train(self) -> Self:
        if self.lora is None:
            return self
        if self.trains != "all":
            raise ValueError(f"lora names what trains by its targets, trains {self.trains} something else: give one")
        if self.parallel != "ddp":
            raise ValueError("lora is merged into whole weights at the end: parallel ddp")
        if self.routing == "language" and "router" in self.lora.targets:
            raise ValueError("lora on the router beside routing language, which trains no router")
        if self.balances and "router" not in self.lora.targets:
            raise ValueError("lora leaves the routers as they are, so there is nothing to balance: add target router")
        return self


class SpecialiseSection(TrainingSection):
    """A second training: each family's expert alone, on text of its own languages alone."""

    routing: RoutingName = Field("hybrid", description="routing during this training")
    loss_on: LossOn = Field("all", description="which tokens carry loss")

    def of(self, family: str) -> MoeTrainingSection:
        """Return the training of one family's expert."""
        return MoeTrainingSection(**self.model_dump(), trains="experts", family=family)


class AblateSection(Section):
    """What parts of the text do to held-out loss; the run tunes the base on each and ends there."""

    languages: list[str] | None = Field(None, description="tuned on alone; all that have text if left out")
    categories: list[str] | None = Field(None, description="left out in turn; all there are if left out")
    max_documents_per_language: Count = Field(20, description="held-out documents scored")
    resamples: Annotated[int, Field(ge=100, strict=True)] = Field(1000, description="of the intervals")


class AnalyseSection(Section):
    """How much text is routed, and how many shuffles make the null."""

    max_documents_per_language: Count = 40
    shuffles: Annotated[int, Field(ge=10, strict=True)] = 200


class EvaluateSection(Section):
    """Which questions are asked and how."""

    tasks: list[Name] = Field([], description="of the suite, beside the exams of the corpus; see evaluate list")
    languages: list[Name] | None = Field(None, description="of the tasks; all they have if left out")
    protocols: Annotated[list[ProtocolName], Field(min_length=1)] = Field(["option"], description="ways of asking")
    shots: Annotated[int, Field(ge=0, le=32, strict=True)] | None = Field(
        None, description="examples before a question, in place of the protocol's number"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = Field(0, description="of the examples")
    new_tokens: Count | None = Field(None, description="most tokens of a written answer, in place of the protocol's")
    instruction: Literal["native", "english", "none"] | None = Field(None, description="what the model is told first")
    routing: Literal["stock", "hybrid", "both"] = Field("both", description="of a mixture; hybrid knows the language")
    sensitivity: Count | None = Field(None, description="questions of each language that are also put in other ways")
    max_questions: Count | None = Field(None, description="per exam and language, in file order")
    max_documents_per_language: Count = Field(40, description="held-out documents scored")
    batch_size: Count = Field(16, description="answers written at once")


class Recipe(Section):
    """A whole run, from raw text to report."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 0
    baseline: Baseline = Field("none", description="run to compare")
    corpus: CorpusSection
    base: BaseSection
    upcycle: UpcycleSection = UpcycleSection()
    train: MoeTrainingSection
    specialise: SpecialiseSection | None = None
    ablate: AblateSection | None = None
    analyse: AnalyseSection = AnalyseSection()
    evaluate: EvaluateSection = EvaluateSection()

    @model_validator(mode="after")
    def _base_can_be_upcycled(self) -> Self:
        """Refuse now what would fail only once the base is trained."""
        scratch = self.base.from_scratch
        loops = [self.train] if scratch is None else [self.train, scratch]
        if not self.corpus.validation and any(loop.validate_every for loop in loops):
            raise ValueError("validate_every needs text: give corpus.validation a share")
        if scratch is not None and self.upcycle.shared_expert != "none":
            raise ValueError("a base trained here becomes qwen3_moe, which has no shared expert")
        if scratch is not None and (scratch.hidden_size % ALIGNED or scratch.intermediate_size % ALIGNED):
            raise ValueError(f"hidden_size and intermediate_size of the base must be multiples of {ALIGNED}")
        return self


def substitute(value: Any, environment: Mapping[str, str], where: object, path: str = "") -> Any:
    """Replace `${NAME}` in every text of a parsed recipe; an unset name is an error."""
    if isinstance(value, dict):
        return {k: substitute(v, environment, where, f"{path}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list):
        return [substitute(v, environment, where, f"{path}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        name = match.group(1)
        if not environment.get(name):
            raise RecipeError(where, f"{path} uses ${{{name}}}, which is not set", f"export {name}=...")
        return environment[name]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", lookup, value)


def override(values: dict[str, Any], assignment: str) -> None:
    """Apply one `section.key=value` in place; the value is read as YAML."""
    dotted, sep, text = assignment.partition("=")
    keys = dotted.split(".")
    if not sep or not all(keys):
        raise UsageError("--set", f"'{assignment}' is not section.key=value", "try --set seed=1")
    parsed = strict_yaml.parse(f"value: {text}", "--set")["value"]
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise RecipeError("--set", f"'{dotted}' goes through a value", "name a key of a section")
    values[keys[-1]] = parsed


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override, substitute and validate a recipe file.

    Raises RecipeError: one line naming the file and the dotted path of the fault; UsageError for an
    override that is none or stands twice.
    """
    values = strict_yaml.load(path)
    keys = [assignment.partition("=")[0] for assignment in overrides]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError("--set", f"{key} stands twice", "give it once")
    for assignment in overrides:
        override(values, assignment)
    return validate(substitute(values, os.environ, path), path)


def validate(values: Mapping[str, Any], where: object) -> Recipe:
    """Turn parsed values into a Recipe, or raise RecipeError for the first fault."""
    return section_of(Recipe, values, where)


def section_of(kind: type[Kind], values: Mapping[str, Any], where: object) -> Kind:
    """Turn parsed values into a recipe or a section of one, or raise RecipeError for the first fault."""
    try:
        return kind.model_validate(values)
    except ValidationError as err:
        raise _explain(err, where, kind) from err


def _explain(err: ValidationError, where: object, kind: type[BaseModel]) -> RecipeError:
    """Turn pydantic's first complaint into where, what and try."""
    first = err.errors()[0]
    path = ".".join(str(part) for part in first["loc"]) or "recipe"
    if first["type"] == "extra_forbidden":
        known = _keys_at(first["loc"][:-1], kind)
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
        return RecipeError(where, f"unknown key '{path}'", hint)
    if first["type"] == "missing":
        return RecipeError(where, f"'{path}' is missing", "add it, see docs/recipe.md")
    given = first.get("input")
    shown = "" if isinstance(given, (dict, list)) else f", given {given!r}"
    what = first["msg"].removeprefix("Value error, ")
    quoted = isinstance(given, str) and _is_number(given)
    return RecipeError(where, f"'{path}': {what}{shown}", "remove the quotes" if quoted else "correct the value")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _keys_at(loc: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    """Known keys of the section of a model that a pydantic location points into."""
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            model = _section_of(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """Find the section class inside an annotation such as `list[Source] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section_of(inner)
        if found:
            return found
    return None
