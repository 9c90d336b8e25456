"""A page in headless Chromium: how far it reaches, its colours, and the names written in it."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# In frames of both widths: how far the page reaches, where right-to-left names end, and how wide tokens are.
MEASURE = """<script>
const root = document.documentElement;
document.querySelectorAll('details').forEach(d => d.open = true);
const seen = {};
for (const width of [1200, 400]) {
  document.body.style.maxWidth = 'none'; root.style.width = width + 'px';
  seen[width] = Math.max(...[...document.body.children].map(e => e.getBoundingClientRect().right))
    - root.getBoundingClientRect().left;
}
const style = getComputedStyle(document.body);
seen.colours = [style.color, style.backgroundColor];
seen.ink = getComputedStyle(document.querySelector('figure svg text')).fill;
seen.reach = [root.scrollWidth, window.innerWidth];
seen.names = [...document.querySelectorAll('td bdi[lang]')].map(e =>
  [e.lang, getComputedStyle(e).direction, e.getBoundingClientRect().width]);
const result = document.createElement('pre');
result.id = 'result'; result.textContent = JSON.stringify(seen); document.body.append(result);
</script>"""


def measured(html: str, folder: Path, width: int, dark: bool) -> Any:
    """Return what the script above saw; the window is as wide as asked, or 500, the least a browser opens."""
    path = folder / "page.html"
    plain = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    path.write_text(plain.replace("</body>", f"{MEASURE}</body>"), "utf-8")
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"),
        *(f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--window-size={width},900"),
        *("--dump-dom", path.as_uri()),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    return json.loads(found[1])
