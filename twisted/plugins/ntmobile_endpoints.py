"""The endpoints ``ntm:PORT`` and ``ntm:NAME:PORT`` (:mod:`ntmobile.client.endpoints`)."""

from ntmobile.client.endpoints import NTMClientEndpointParser, NTMServerEndpointParser

ntmServerEndpoint = NTMServerEndpointParser()
ntmClientEndpoint = NTMClientEndpointParser()

__all__ = ["ntmClientEndpoint", "ntmServerEndpoint"]
