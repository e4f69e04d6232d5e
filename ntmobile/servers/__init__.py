"""The servers of a realm: account server, direction coordinator, relay server."""
