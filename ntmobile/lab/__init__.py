"""A virtual internet of real network namespaces with real NAT, without root (Linux).

What a lab is made of is in :mod:`ntmobile.lab.network`, the kinds of access network in
:mod:`ntmobile.lab.internet`, and what measures a way through it in
:mod:`ntmobile.lab.measure`. The supervisor of a lab starts fast, so nothing is imported here.
"""
