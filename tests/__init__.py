"""Tests of ntmobile; ``python -m twisted.trial tests`` runs them."""
