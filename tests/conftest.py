"""Run-wide rules: one torch thread, and no skip that is not on the committed list."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ALLOWED = Path(__file__).with_name("allowed_skips.txt")


def allowed_reasons() -> list[str]:
    return [line for line in ALLOWED.read_text("utf-8").splitlines() if line and not line.startswith("#")]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, a skip with a reason that nobody agreed to fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    reasons = {str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped}
    unknown = sorted(reasons - set(allowed_reasons()))
    if unknown and os.environ.get("CI"):
        reporter.write_line(f"skips not in {ALLOWED.name}: {', '.join(unknown)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
