"""The page in a real browser: it asks for nothing, and a dose in right-to-left text reads in order."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from polyclinic.languages import language
from polyclinic.markup import Fragment, native
from polyclinic.page import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

DOSES = ["5 mg/kg", "38-39", "120/80", "38.5 °C", "1 000 ml", "-5 °C"]
# Reads off where the characters of every quantity stand on the screen.
MEASURE = """<script>
document.querySelectorAll('details').forEach(d => d.open = true);
const places = [...document.querySelectorAll('#doses p')].map(p => {
  const walker = document.createTreeWalker(p, NodeFilter.SHOW_TEXT), out = [];
  for (let node; node = walker.nextNode();) {
    [...node.data].forEach((c, i) => {
      const range = document.createRange(); range.setStart(node, i); range.setEnd(node, i + 1);
      out.push([c, range.getBoundingClientRect().left]);
    });
  }
  return out;
});
const result = document.createElement('pre');
result.id = 'result'; result.textContent = JSON.stringify(places); document.body.append(result);
</script>"""


def dump(html: str, folder: Path) -> str:
    """Return the document as the browser holds it after loading."""
    path = folder / "page.html"
    path.write_text(html, "utf-8")
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *(
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--metrics-recording-only",
        ),
        *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={folder / 'profile'}"),
        *("--window-size=1200,900", "--dump-dom", path.as_uri()),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """Listen on this machine; yields the address and the list of paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:  # browsers open sockets that stay silent
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", asked
        listening.shutdown()
        thread.join()


def without_policy(html: str) -> str:
    return re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)


def test_the_page_makes_no_request_even_where_something_hostile_got_into_it(
    tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    address, asked = server
    hostile = (
        '<img src="ADDRESS/image"><link rel="stylesheet" href="ADDRESS/style"><iframe src="ADDRESS/frame"></iframe>'
        '<script src="ADDRESS/script"></script><p style="background-image: url(ADDRESS/background)">x</p>'
    ).replace("ADDRESS", address)
    html = page("run", [("a", "1")], [Fragment("Part", "Lead.", hostile)], {})
    assert "Polyclinic: run" in dump(html, tmp_path)
    assert asked == []
    dump(without_policy(html), tmp_path)
    assert {"/image", "/style", "/frame", "/script", "/background"} <= set(asked)  # the server does see requests


@pytest.mark.parametrize("code", ["ar", "he"])
def test_a_dose_in_right_to_left_text_stands_in_order_on_the_screen(tmp_path: Path, code: str) -> None:
    before, after = {"ar": ("أعط ", " كل يوم."), "he": ("תן ", " כל יום.")}[code]
    doses = "".join(f"<p>{native(language(code), before + dose + after)}</p>" for dose in DOSES)
    html = page("run", [], [Fragment("Doses", "", f'<div id="doses">{doses}</div>')], {})
    plain = re.sub(r'<bdi dir="ltr">(.*?)</bdi>', r"\1", html)
    assert [order(places, len(before)) for places in measured(html, tmp_path)] == DOSES
    assert [order(places, len(before)) for places in measured(plain, tmp_path)] != DOSES  # what isolation is for


def measured(html: str, folder: Path) -> list[list[tuple[str, float]]]:
    """Return the characters of each dose's paragraph and where they stand, from left in pixels."""
    dom = dump(without_policy(html).replace("</body>", f"{MEASURE}</body>"), folder)
    found = re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    return [[(c, x) for c, x in places] for places in json.loads(found[1])]


def order(places: list[tuple[str, float]], start: int) -> str:
    """Return the characters of the quantity that begins at `start` as they stand from left to right."""
    length = next(i for i, (c, _) in enumerate(places[start:]) if ord(c) > 0x500) - 1
    return "".join(c for c, _ in sorted(places[start : start + length], key=lambda place: place[1]))
