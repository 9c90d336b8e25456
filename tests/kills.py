"""Builds of a small corpus that are killed with SIGKILL: worker, parent, or both."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from polyclinic.cli import main
from polyclinic.corpus import clean
from polyclinic.runs import sha256_file

Victim = Literal["worker", "parent", "both"]
FILES, LINES = 16, 120
RECIPE = """
name: kills
corpus:
  root: in
  languages: [en, sw]
  held_out: 0.2
  texts: [{path: "*.jsonl"}]
  exams: [{starter: true, languages: [en]}]
base: {checkpoint: x}
train: {steps: 1}
"""
# Without the model of languages, which takes longer to load than all else takes; in every worker, too.
SCRIPT = """
import sys
from polyclinic.corpus import clean
class Nobody:
    def verdict(self, text, declared):
        return "not checked"
clean.identifier = lambda choice, wanted: Nobody()
if __name__ == "__main__":
    from polyclinic.cli import main
    sys.exit(main(sys.argv[1:]))
"""


class Nobody:
    """Knows no language."""

    def verdict(self, text: str, declared: str) -> str:
        """Say of every text that it was not checked."""
        return "not checked"


class Kills:
    """A recipe with its inputs, and builds of it below one folder."""

    def __init__(self, home: Path) -> None:
        self._home = home
        (home / "in").mkdir()
        (home / "recipe.yaml").write_text(RECIPE)
        (home / "build.py").write_text(SCRIPT)
        for number in range(FILES):
            texts = [f"text {i} of {number if i % 7 else 'many'}, with some words more" for i in range(LINES)]
            rows = [json.dumps({"language": "en", "text": text}) + "\n" for text in texts]
            (home / f"in/{number:02d}.jsonl").write_text("".join(rows))

    def start(self, out: str, workers: int) -> "subprocess.Popen[bytes]":
        """Start a build in a folder."""
        command = [sys.executable, "build.py", "corpus", "build", "recipe.yaml", "--out", out]
        command += ["--set", f"corpus.workers={workers}", "--json"]
        with (self._home / "said").open("w") as said:
            return subprocess.Popen(command, cwd=self._home, stdout=subprocess.DEVNULL, stderr=said)

    def build_here(self, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Build the same in this process, which costs less than another one."""
        monkeypatch.chdir(self._home)
        monkeypatch.setattr(clean, "identifier", lambda choice, wanted: Nobody())
        assert main(["corpus", "build", "recipe.yaml", "--out", out, "--json"]) == 0

    def said(self) -> str:
        """Return what the last build said."""
        return (self._home / "said").read_text()

    def finished(self, out: str) -> dict[str, int]:
        """Return the shards of a folder that are finished, with the time of each."""
        found = (self._home / out / ".shards").glob("*/[!.]*/manifest.json")
        return {f"{p.parts[-3]}/{p.parts[-2]}": p.stat().st_mtime_ns for p in found}

    def begun(self, out: str) -> list[str]:
        """Return the shards that were being made when all stopped."""
        return [p.name for p in (self._home / out / ".shards").glob("*/.work-*")]

    def result(self, out: str) -> dict[str, str]:
        """Return the digests of all that was published."""
        files = sorted(p for p in (self._home / out / "corpus").rglob("*") if p.is_file())
        return {str(p.relative_to(self._home / out)): sha256_file(p) for p in files}

    def kill(self, out: str, workers: int, victim: Victim, moment: Callable[[], bool]) -> bool:
        """Build, and kill once `moment` says so; checks what is left. Says whether anything was killed."""
        before, left = self.finished(out), set(self.begun(out))
        process = self.start(out, workers)
        while not moment():
            if process.poll() is not None:
                assert process.returncode == 0, self.said()
                return False
            time.sleep(0.005)
        children = workers_of(process.pid)
        if victim != "worker" or not children:
            process.kill()
        for child in children[: 1 if victim == "worker" else len(children) if victim == "both" else 0]:
            os.kill(child, signal.SIGKILL)
        clock = time.monotonic()
        code = process.wait(30)
        assert time.monotonic() - clock < 10
        assert code in ((-signal.SIGKILL,) if victim != "worker" or not children else (1, 0)), self.said()
        assert all(gone(child) for child in children)
        assert len(set(self.begun(out)) - left) <= workers, "more was begun than there are workers"
        after = self.finished(out)
        assert {name: after.get(name) for name in before} == before, "a finished shard was done again"
        return True


def workers_of(pid: int) -> list[int]:
    """Return the pool's processes of a build."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
    except FileNotFoundError:
        return []


def gone(pid: int) -> bool:
    """Say whether a process ends within five seconds."""
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False
