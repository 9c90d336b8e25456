"""Write the table of recipe keys into docs/recipe.md; a developer's command.

    PYTHONPATH=src python scripts/build_recipe_reference.py

Types, bounds, defaults and descriptions are those of the pydantic models (`polyclinic/recipe.py`),
read through their JSON schema; the text between two marker lines of the page is replaced. Keys
whose model says nothing about them are explained in MEANINGS below. `tests/test_docs.py` fails
where page and models part.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from polyclinic.recipe import Recipe

PAGE = Path(__file__).parents[1] / "docs/recipe.md"
BEGIN = "<!-- keys: begin, written by scripts/build_recipe_reference.py -->"
END = "<!-- keys: end -->"
WIDTH = 110
MANY = 5  # values that are listed without marks, which would take too much room

# Heading and model of each part of the table, in the order of a recipe.
TABLES = (
    ("top level", "Recipe"),
    ("corpus", "CorpusSection"),
    ("an entry of corpus.texts or corpus.exams", "Source"),
    ("corpus.licences", "LicencesSection"),
    ("corpus.dedup", "DedupSection"),
    ("corpus.decontaminate", "DecontaminateSection"),
    ("corpus.quality", "QualitySection"),
    ("corpus.quality.limits", "LimitsSection"),
    ("corpus.quality.percentiles", "PercentilesSection"),
    ("corpus.quality.ordinary", "OrdinarySection"),
    ("an entry of corpus.quality.per_language", "LanguageQualitySection"),
    ("limits and ordinary of such an entry", "MeasuresSection"),
    ("corpus.mix", "MixSection"),
    ("corpus.mix.weights", "MixWeights"),
    ("an entry of corpus.mix.sources or categories", "Pace"),
    ("corpus.privacy", "PrivacySection"),
    ("corpus.rewrite", "RewriteSection"),
    ("corpus.translate", "TranslateSection"),
    ("corpus.rewrite.endpoint and corpus.translate.endpoint", "EndpointSection"),
    ("base", "BaseSection"),
    ("a training loop: base.from_scratch, train and specialise", "TrainingSection"),
    ("base.from_scratch, besides the loop", "ScratchSection"),
    ("upcycle", "UpcycleSection"),
    ("train, besides the loop", "MoeTrainingSection"),
    ("train.lora", "LoraSection"),
    ("specialise, besides the loop", "SpecialiseSection"),
    ("ablate", "AblateSection"),
    ("analyse", "AnalyseSection"),
    ("evaluate", "EvaluateSection"),
)
LOOP = "TrainingSection"
WITH_LOOP = ("ScratchSection", "MoeTrainingSection", "SpecialiseSection")

NAMES = {"string": "text", "boolean": "true or false", "object": "text by name"}
SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}

# Meanings of keys that have no description in their model.
MEANINGS = {
    "Recipe.name": "title of the report",
    "Recipe.seed": "seed of everything drawn",
    "Recipe.corpus": "texts and exams",
    "CorpusSection.licences": "which licences text may have",
    "CorpusSection.mix": "what appears how often; each text once when left out",
    "CorpusSection.dedup": "duplicates, exact and near",
    "MixSection.weights": "shares by source, category and language",
    "CorpusSection.decontaminate": "exam items in training text",
    "CorpusSection.quality": "what is too short, repetitive or odd",
    "QualitySection.limits": "what lies outside goes at once",
    "QualitySection.percentiles": "of 0 to 100, over the documents of a language",
    "QualitySection.ordinary": "what lies inside goes by no percentile",
    "LanguageQualitySection.limits": "in place of the limits of all languages",
    "LanguageQualitySection.percentiles": "in place of the percentiles of all languages",
    "LanguageQualitySection.ordinary": "in place of what is ordinary in all languages",
    "CorpusSection.privacy": "numbers, dates and addresses of persons",
    "CorpusSection.rewrite": "a model writes questions and answers from passages",
    "CorpusSection.translate": "translated copies of documents, audited",
    "RewriteSection.endpoint": "which model writes",
    "TranslateSection.endpoint": "which model translates",
    "Recipe.base": "the dense parent",
    "Recipe.upcycle": "where the experts go",
    "Recipe.train": "training of the mixture",
    "Recipe.specialise": "a second training, of each family's expert alone",
    "Recipe.ablate": "what each language's and category's text is worth",
    "Recipe.analyse": "watching the routing",
    "Recipe.evaluate": "exams and held-out loss",
    "BaseSection.from_scratch": "train a small base on the corpus",
    "TrainingSection.schedule": "learning rate after the warm-up",
    "TrainingSection.warmup_steps": "steps in which the rate rises from 0 to its peak",
    "TrainingSection.weight_decay": "of AdamW, on matrices only",
    "TrainingSection.max_gradient_norm": "gradients are clipped to this norm",
    "ScratchSection.vocab_size": "entries of the vocabulary at most, special tokens included",
    "ScratchSection.hidden_size": "width of the hidden states",
    "ScratchSection.intermediate_size": "width inside the feed-forward part, and of an expert",
    "ScratchSection.num_layers": "decoder layers",
    "ScratchSection.num_heads": "attention heads, of hidden_size / num_heads each",
    "ScratchSection.num_kv_heads": "key and value heads; divides num_heads",
    "MoeTrainingSection.lora": "adapters instead of the weights themselves",
    "AnalyseSection.max_documents_per_language": "held-out documents routed",
    "AnalyseSection.shuffles": "shuffles that make the null",
}


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of every model by name; the loop's is what all loops share."""
    whole = Recipe.model_json_schema()
    found: dict[str, dict[str, Any]] = {**whole["$defs"], "Recipe": whole}
    one, other = (found[name] for name in WITH_LOOP[:2])
    shared = {k: v for k, v in one["properties"].items() if other["properties"].get(k) == v}
    found[LOOP] = {"properties": shared, "required": [k for k in one.get("required", ()) if k in shared]}
    for name in WITH_LOOP:
        own = {k: v for k, v in found[name]["properties"].items() if k not in shared}
        found[name] = {**found[name], "properties": own}
    return found


def kind(schema: Mapping[str, Any]) -> str:
    """Return a JSON schema's type in words, bounds included."""
    if "anyOf" in schema:  # the default tells that null is allowed
        return kind(next(s for s in schema["anyOf"] if s.get("type") != "null"))
    if "$ref" in schema:
        return "section"
    if "const" in schema:
        return f"`{schema['const']}`"
    if len(schema.get("enum", ())) > MANY:
        return "one of " + ", ".join(schema["enum"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return kind_of_list(schema)
    if "pattern" in schema:
        return f"text, `{schema['pattern']}`"
    values = schema.get("additionalProperties")
    if isinstance(values, dict) and values.get("type") != "string":
        return "entries by name" if "$ref" in values else f"{kind(values)}, by name"
    word = NAMES.get(schema["type"], schema["type"])
    bounds = [f"{sign} {schema[key]:.10g}" for key, sign in SIGNS.items() if key in schema]
    return f"{word} {', '.join(bounds)}".strip()


def kind_of_list(schema: Mapping[str, Any]) -> str:
    """Return what a list holds in words."""
    if "anyOf" in schema["items"]:
        return "`[low, high]`"
    items = "list of entries" if "$ref" in schema["items"] else "list of text"
    if "enum" in schema["items"]:
        items = f"list of {', '.join(schema['items']['enum'])}"
    return items + (f", at least {schema['minItems']}" if "minItems" in schema else "")


def default(key: str, schema: Mapping[str, Any], required: Iterable[str]) -> str:
    """Return what holds where a key is left out."""
    if key in required:
        return "needed"
    value = schema["default"]
    if isinstance(value, dict) and value:
        return "as below"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def row(model: str, key: str, schema: Mapping[str, Any], required: Iterable[str]) -> str:
    """Return a key's line; raises ValueError where its meaning is told nowhere or twice."""
    told, here = schema.get("description"), MEANINGS.get(f"{model}.{key}")
    if "$ref" in schema or schema.get("anyOf", [{}])[0].get("$ref"):
        told = None  # the docstring of the section's class
    if (told is None) == (here is None):
        raise ValueError(f"{model}.{key} needs one meaning: in its model or in MEANINGS")
    line = f"| `{key}` | {kind(schema)} | {default(key, schema, required)} | {told or here} |"
    if len(line) > WIDTH:
        raise ValueError(f"{model}.{key}: {len(line)} characters, {WIDTH} fit")
    return line


def reference() -> str:
    """Return all keys as one Markdown table; raises ValueError for a model that no part of it shows."""
    known = schemas()
    unseen = set(known) - {model for _, model in TABLES}
    if unseen:
        raise ValueError(f"TABLES lacks {', '.join(sorted(unseen))}")
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for heading, model in TABLES:
        schema = known[model]
        lines.append(f"| **{heading}** | | | |")
        required = schema.get("required", ())
        lines += [row(model, key, value, required) for key, value in schema["properties"].items()]
    return "\n".join(lines)


def rewritten(text: str) -> str:
    """Return the page with its table of keys made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
