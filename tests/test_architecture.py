"""docs/architecture.md names files and code that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = re.sub(r"(?ms)^```.*?^```", "", (ROOT / "docs/architecture.md").read_text(encoding="utf-8"))
SPANS = {each.removesuffix("()") for each in re.findall(r"`([^`\n]+)`", TEXT)}
FILES = {each for each in SPANS if re.fullmatch(r"[\w./-]+/|[\w./-]+\.(py|md|js|html|toml)", each)}
NAMES = {each for each in SPANS - FILES if re.fullmatch(r"[A-Za-z]\w+(\.\w+)?", each)}


def test_files_exist():
    places = [ROOT, ROOT / "perceptual", ROOT / "perceptual/inference"]  # the last two: rooms and their modules
    assert len(FILES) > 40
    assert not [each for each in FILES if not any((place / each).exists() for place in places)]


def test_names_exist():
    defined = {name for room in ("perceptual", "training") for file in (ROOT / room).rglob("*.py") for name in of(file)}
    assert len(NAMES) > 40
    assert not NAMES - defined


def of(file):
    """The functions, classes, methods and fields of a module: ``read``, ``Job``, ``Job.read``, ``Job.format``."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                yield f"{node.name}.{getattr(each, 'name', '') or getattr(getattr(each, 'target', None), 'id', '')}"
