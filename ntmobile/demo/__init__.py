"""``ntm demo``: the whole platform on one machine, in real processes, for a newcomer to watch.

:mod:`.world` is the internet that it happens in, :mod:`.platform` the servers and devices,
:mod:`.counter` the ordinary program whose connection goes on, :mod:`.following` and :mod:`.ladder`
what is shown of the messages, and :mod:`.show` the play itself.
"""
