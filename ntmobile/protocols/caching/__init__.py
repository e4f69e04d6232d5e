"""A cache server's HTTP API (paper, IV and V-B; R28 to R34): who may ask what, and what is done.

- :mod:`.access`: who asks, by token or by another realm's certificate.
- :mod:`.keys`, :mod:`.uploads`, :mod:`.downloads`: what devices ask.
- :mod:`.exchanging`: what the coordinators of the destinations are told.
- :mod:`.api`: all of it as one table of routes.
"""
