"""ntmobile: devices talk end to end, by name, wherever they are and while they move.

An implementation of NTMobile (Network Traversal with Mobility; Naito et al.) in user space.
"""

__version__ = "0.1.0"
