"""A virtual network in a namespace of its own, made and kept without root.

A small process (:mod:`~ntmobile.plugins.netns.helper`) makes a user, a network and a mount
namespace with a TUN device in it and stays there. It hands the device, sockets and the namespaces
themselves over a Unix socket in the state directory, to the agent and to ``ntm exec``. It outlives
both.
"""
