"""The whole platform of real processes in a lab, for the tests and the benchmarks.

:mod:`.standing` has the hosts, :mod:`.platform` the servers and the devices on them, :mod:`.gaps`
what programs see while devices move, :mod:`.traffic` the ordinary programs that talk.
"""
