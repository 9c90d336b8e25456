"""The documentation says what is there: keys of the models, links that lead somewhere, commands that work."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from polyclinic.cli import build_parser
from polyclinic.errors import UsageError

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.is_file()]
STAGES = ("corpus", "upcycle", "train", "analyse", "evaluate", "languages", "recipe")
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:\$ |    )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(polyclinic .+)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """Return the names by which a page's headings are linked."""
    heads = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead to no file or heading."""
    out = []
    for target in LINK.findall(prose(page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text("utf-8"))):
            out.append(target)
    return out


def commands(text: str) -> list[str]:
    """Return the command lines of a page's blocks, joined at backslashes."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = map(COMMAND.match, lines)
    return [match.group(1) for match in found if match]


def parses(command: str) -> bool:
    """Say whether the command line knows a command, and that it is a whole one."""
    words = shlex.split(command, comments=True)[1:]
    try:
        return hasattr(build_parser().parse_args(words), "work")
    except UsageError:
        return False


def test_every_stage_has_its_page() -> None:
    assert set(STAGES) <= {page.stem for page in PAGES}


def test_the_recipe_page_lists_the_keys_as_the_models_have_them() -> None:
    script = runpy.run_path(str(ROOT / "scripts/build_recipe_reference.py"))
    text = script["PAGE"].read_text("utf-8")
    assert script["BEGIN"] in text
    assert text == script["rewritten"](text), "run scripts/build_recipe_reference.py"


def test_a_key_without_a_meaning_cannot_be_listed() -> None:
    script = runpy.run_path(str(ROOT / "scripts/build_recipe_reference.py"))
    with pytest.raises(ValueError, match=r"Recipe\.news needs one meaning"):
        script["row"]("Recipe", "news", {"type": "integer", "default": 1}, ())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_line_parses(page: Path) -> None:
    assert [c for c in commands(page.read_text("utf-8")) if not parses(c)] == []


def test_command_lines_are_found_and_broken_ones_refused(tmp_path: Path) -> None:
    block = "```\n$ polyclinic check a.yaml  # why\npolyclinic run a.yaml \\\n  --outt b\n```\n"
    found = commands(f"{block}\n    polyclinic corpus\n")
    assert found == ["polyclinic check a.yaml  # why", "polyclinic run a.yaml --outt b", "polyclinic corpus"]
    assert [parses(c) for c in found] == [True, False, False]
    page = tmp_path / "page.md"
    links = "[a](#one) [b](#two) [c](gone.md) [d](page.md) [e](https://example.org/x)"
    page.write_text(f"# One\n{links}\n", "utf-8")
    assert broken_links(page) == ["#two", "gone.md"]


@pytest.mark.parametrize("stage", STAGES)
def test_pages_of_stages_keep_their_width_and_show_no_place_of_a_machine(stage: str) -> None:
    text = (ROOT / "docs" / f"{stage}.md").read_text("utf-8")
    assert [line for line in text.splitlines() if len(line) > 110] == []
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|usr|mnt)/", text)
