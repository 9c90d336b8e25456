"""A folder of the analyse step with all that can lie in it."""

from pathlib import Path
from typing import Any

import made_routes
import pytest

from polyclinic.analyse.report.fragments import parts
from polyclinic.analyse.report.plates import Part
from polyclinic.runs import write_json


@pytest.fixture(scope="session")
def routes() -> Any:
    return made_routes.facts(buckets=4, tokens=60, ids=10)


@pytest.fixture(scope="session")
def step(routes: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("routes") / "analyse"
    folder.mkdir()
    saturation = {
        "checkpoints": {"step-1": {"overlap": [0.4375] * 3, "same_first": [0.3125] * 3}},
        **{"last": "step-1", "by_chance": {"overlap": 0.25, "same_first": 0.125}, "n": 64},
    }
    write_json(folder / "routing.json", {**routes, "saturation": saturation})
    write_json(folder / "causal.json", made_routes.causal())
    write_json(folder / "depth.json", made_routes.depth())
    return folder


@pytest.fixture(scope="session")
def sections(step: Path) -> list[Part]:
    return parts(step)
