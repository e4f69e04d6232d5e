"""A virtual internet of real network namespaces with real NAT, in which real processes are tested.

It needs no root: everything lives inside one unprivileged user namespace, and dies with it.
The lab itself is :mod:`ntmobile.lab`, the platform in it :mod:`ntmobile.testbed`;
:mod:`tests.lab.standing` is the one that many tests share, and :mod:`tests.lab.case` the base
class of such tests.
"""
