"""Message declarations, codec, sealing and headers: no Twisted, no clock, no sockets."""
