"""Tests of ntmobile; ``python -m twisted.trial tests`` runs them."""

from __future__ import annotations

import os

from hypothesis import settings

# Examples are not timed: a busy machine would fail them. CI must say the same of the same commit.
settings.register_profile("ntmobile", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("ntmobile")
