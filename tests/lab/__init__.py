"""A virtual internet of real network namespaces with real NAT, in which real processes are tested.

It needs no root: everything lives inside one unprivileged user namespace, and dies with it.
Start at :mod:`tests.lab.network` (what a lab is made of), :mod:`tests.lab.internet` (the kinds of
access network), :mod:`tests.lab.standing` (the lab that many tests share) and
:mod:`tests.lab.case` (the base class of such tests). This file stays empty of imports, since the
supervisor and the tools start from it and must start fast.
"""
