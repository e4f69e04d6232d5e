"""Tests of ntmobile; ``python -m twisted.trial tests`` runs them."""

from __future__ import annotations

import os
import sys

# Programs that the tests start from this package import it too, and must start fast.
if "twisted.trial" in sys.modules:
    from hypothesis import settings

    # Examples are not timed: a busy machine would fail them. CI says the same of the same commit.
    settings.register_profile("ntmobile", deadline=None, derandomize="CI" in os.environ)
    settings.load_profile("ntmobile")
