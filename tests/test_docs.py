"""The examples in the documentation run, and the pages name things that exist."""

import re
from pathlib import Path

import pytest

from scripts import systems

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_run(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        exec(compile(block, page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize("system", systems.PACKAGES)
def test_experiments_in_commands_exist(page, system):
    known = systems.load(system, "experiments").EXPERIMENTS
    for name in re.findall(rf"scripts\.train {system} ([\w-]+)", page.read_text()):
        assert name in known or name.startswith("--"), name
