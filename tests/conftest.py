"""Run-wide rules: one torch thread, and no skip that is not on the committed list."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ALLOWED = Path(__file__).with_name("allowed_skips.txt")


def allowed_reasons() -> list[str]:
    return [line for line in ALLOWED.read_text("utf-8").splitlines() if line and not line.startswith("#")]


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, and leave the process as it was, whatever commands did to it."""
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, os.environ.get(name, "false"))
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from damage import make_models

    return make_models(tmp_path_factory.getbasetemp() / "upcycled")


@pytest.fixture
def copies(models: Path, inside: Path) -> Path:
    """Work in a folder with private copies of an upcycled model, its base and its published form."""
    for name in ("dense", "moe", "pub"):
        shutil.copytree(models / name, inside / name)
    return inside


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, a skip with a reason that nobody agreed to fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    reasons = {str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped}
    unknown = sorted(reasons - set(allowed_reasons()))
    if unknown and os.environ.get("CI"):
        reporter.write_line(f"skips not in {ALLOWED.name}: {', '.join(unknown)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
