"""Stored data, end to end: keys, objects and manifests that no server can read or forge (R29-R32).

Nothing here stores, sends or asks for the time: the caller gives unix seconds of the AS's clock
(R12), and keeps what it is given. What comes from a peer is verified against the identity that the
caller has pinned (R5), the raw Ed25519 key, before anything of it is opened.
"""
