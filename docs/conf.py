"""Sphinx configuration."""

from __future__ import annotations

import logging
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_found = re.search(
    r'^__version__ = "([^"]+)"$', (ROOT / "ntmobile" / "__init__.py").read_text("utf-8"), re.M
)

project = "ntmobile"
author = "the ntmobile developers"
copyright = author
release = version = _found.group(1) if _found else ""

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "ntmobile"


# A chapter's index lists whatever pages stand beside it, at first none. The warning names a subtype
# but no type, so that ``suppress_warnings`` cannot reach it.
logging.getLogger("sphinx.sphinx.directives.other").addFilter(
    lambda record: getattr(record, "subtype", "") != "empty_glob"
)
