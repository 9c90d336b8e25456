"""What a person names, opened as models of lm-eval whose answers are kept: checkpoint folders and servers.

Nothing is loaded before it is asked, and one model is open at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from polyclinic.evaluate.exams import check_installed
from polyclinic.evaluate.protocol import GENERATED, PROTOCOLS
from polyclinic.evaluate.run import Asked
from polyclinic.families import load_preset, recorded
from polyclinic.moe.checkpoint import POLYCLINIC, read_families
from polyclinic.progress import Progress
from polyclinic.recipe import EvaluateSection

ANSWERS = ".answers"  # of a run: what models answered, for all that is asked of them later
DEFAULT_FAMILIES = "balanced"  # to group the languages of a model that has none
STOCK, HYBRID, BOTH = "stock", "hybrid", "both"


def local(name: str, checkpoint: Path, section: EvaluateSection, answers: Path) -> list[Asked]:
    """Return a checkpoint under the routings that a section asks for; a dense one has but one way."""
    if not is_mixture(checkpoint) and section.routing == BOTH:
        return [Asked(name, "", _kept(partial(_local, checkpoint, STOCK, section.batch_size), answers))]
    routings = (STOCK, HYBRID) if section.routing == BOTH else (section.routing,)
    return [Asked(name, r, _kept(partial(_local, checkpoint, r, section.batch_size), answers)) for r in routings]


def all_local(models: Mapping[str, Path], section: EvaluateSection, answers: Path) -> list[Asked]:
    """Return several checkpoints by name, one after the other."""
    return [one for name, path in models.items() for one in local(name, path, section, answers)]


def served(name: str, endpoint: Any, section: EvaluateSection, answers: Path) -> list[Asked]:
    """Return a model behind an address (an `Endpoint` of `backends.server`)."""
    scores = any(PROTOCOLS[protocol].scoring not in GENERATED for protocol in section.protocols)
    return [Asked(name, "", _kept(partial(_served, endpoint, scores), answers))]


def in_vllm(name: str, checkpoint: Path, answers: Path) -> list[Asked]:
    """Return a checkpoint run by vLLM in this process, with its stock routing."""
    return [Asked(name, STOCK if is_mixture(checkpoint) else "", _kept(partial(_vllm, checkpoint), answers))]


def is_mixture(checkpoint: Path) -> bool:
    """Say whether a checkpoint has experts of families."""
    return (checkpoint / POLYCLINIC).is_file()


def family_of(checkpoint: Path | None) -> Callable[[str], str]:
    """Return what names a language's family: the families of a mixture, else those of the default preset."""
    preset = load_preset(DEFAULT_FAMILIES)
    if checkpoint is not None and is_mixture(checkpoint):
        preset = recorded(read_families(checkpoint)["families"])
    return lambda code: preset.family_of(code).name


Opener = Callable[[Progress], tuple[Any, dict[str, Any]]]


def _kept(opener: Opener, answers: Path) -> Any:
    """Return what opens a model with its kept answers beside it."""

    @contextmanager
    def opened(progress: Progress) -> Iterator[Any]:
        check_installed()
        from polyclinic.evaluate.backends import kept

        with kept.opened(answers, progress.say) as store:
            model, facts = opener(progress)
            yield kept.Kept(model, store, facts, progress)

    return opened


def _local(checkpoint: Path, routing: str, batch_size: int, progress: Progress) -> tuple[Any, dict[str, Any]]:
    from polyclinic.evaluate.backends.local import LocalModel

    model = LocalModel(checkpoint, routing, batch_size, say=progress.say)
    return model, model.facts()


def _served(endpoint: Any, scores: bool, progress: Progress) -> tuple[Any, dict[str, Any]]:
    from polyclinic.evaluate.backends.server import connect

    return connect(endpoint, scores), endpoint.facts()


def _vllm(checkpoint: Path, progress: Progress) -> tuple[Any, dict[str, Any]]:
    from polyclinic.evaluate.backends.server import vllm
    from polyclinic.runs import weight_digests

    return vllm(checkpoint), {"files": weight_digests(checkpoint), "engine": "vllm"}
