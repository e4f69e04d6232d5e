"""State machines without a reactor: they take events and the time, and say what is to be done.

A folder for each conversation of the system: :mod:`.login`, :mod:`.signalling`, :mod:`.direction`,
:mod:`.tunnel`, :mod:`.relay`, :mod:`.exchange` and :mod:`.revocation`; :mod:`.device` is what a
device has beside its tunnels, and :mod:`.zone` the DNS function of a DC.
"""
