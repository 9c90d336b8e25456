"""Our routing against the published Apollo-MoE code, where its folder and an older environment are named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_published.py"
CODE, OLD_PYTHON = os.environ.get("POLYCLINIC_PUBLISHED_CODE"), os.environ.get("POLYCLINIC_OLD_PYTHON")


@pytest.mark.soak
@pytest.mark.skipif(not (CODE and OLD_PYTHON), reason="POLYCLINIC_PUBLISHED_CODE and POLYCLINIC_OLD_PYTHON are not set")
@pytest.mark.parametrize(
    ("variant", "options"),
    [("language_family", []), ("language_specific_routing", ["--shared"])],
    ids=["family", "specific"],
)
@pytest.mark.parametrize("width", ["toy", "real"])
def test_the_published_file_gives_the_same_picks_logits_and_gradients(
    tmp_path: Path, variant: str, options: list[str], width: str
) -> None:
    folder, code = tmp_path / "recorded", Path(str(CODE)) / variant
    record = [str(OLD_PYTHON), str(SCRIPT), "record", str(code), str(folder), "--width", width, *options]
    subprocess.run(record, check=True, capture_output=True)
    compared = subprocess.run([sys.executable, str(SCRIPT), "compare", str(folder)], capture_output=True, text=True)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert "logits at test" in compared.stdout
