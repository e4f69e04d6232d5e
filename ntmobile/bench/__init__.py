"""``make bench``: ntmobile beside its peers, in one run, in networks that it makes itself.

:mod:`.suite` runs the parts one after another, :mod:`.results` is what a measurement is,
:mod:`.report` and :mod:`.plot` write ``docs/benchmarks.*``. :mod:`.relay` and :mod:`.tunnel`
measure throughput beside peers, :mod:`.answers` and :mod:`.handover` times, :mod:`.profiles` and
:mod:`.floor` say where the time goes. Peers are found, or built, by :mod:`.programs`.
"""
