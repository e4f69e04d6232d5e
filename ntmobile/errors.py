"""The one tree of errors. Each docstring says what the error means to the one who reads it."""

from __future__ import annotations


class NTMobileError(Exception):
    """What ntmobile was asked to do did not succeed; the text is one line that says what to do."""


class ConfigurationError(NTMobileError):
    """A configuration file, an option or a state directory is missing, unreadable or wrong."""


class InvalidName(NTMobileError):
    """A name is not a valid FQDN, user, device or domain of a realm."""


class MalformedMessage(NTMobileError):
    """Bytes from a peer are not a message this version accepts (size, type, field, bounds)."""


class AuthenticationError(NTMobileError):
    """A password, certificate, signature or session was not accepted."""


class CertificateError(AuthenticationError):
    """A certificate is missing, expired, of another realm, or names another role or name."""


class CertificateNotCurrent(CertificateError):
    """A certificate has expired or is not valid yet: renew it, or set the clock (R12)."""


class UntrustedIdentity(AuthenticationError):
    """A correspondent shows another identity than the one pinned; ``ntm trust FQDN`` accepts it."""


class AccessDenied(NTMobileError):
    """The peer is known but may not do what it asked; strangers cannot tell it from unknown."""


class UnknownName(NTMobileError):
    """Nobody of that name can be found: misspelt, not enrolled, or not for you to see."""


class Unreachable(NTMobileError):
    """A server or correspondent did not answer in time; the text says which and what was tried."""


class NotPermittedHere(NTMobileError):
    """This system forbids what was asked (namespace, TUN, port); the text names the alternative."""


class NotRegistered(NTMobileError):
    """The client has no session with its coordinator (enrol, log in or wait for the network)."""


class QuotaExceeded(NTMobileError):
    """A limit on attempts, clients, tunnels or storage is reached; the text says when to retry."""


class AlreadyExists(NTMobileError):
    """What was to be made is there already and is left as it is; the text says what to do."""


class StorageFailed(NTMobileError):
    """A disk is full, or a database locked or damaged; what was asked was not done at all."""


class StorageFull(StorageFailed):
    """There is no room: nothing of it was stored. Make room, or send less."""


class NoSuchItem(NTMobileError):
    """No such key, object or part is kept here: it expired, was withdrawn, or never came."""


class ContentChanged(NTMobileError):
    """A file changed while it was sent; nothing of it was delivered. Send it anew."""


class ItemExpired(NTMobileError):
    """A stored key or item is past the time that its sender gave it; it has to be sent again."""


class KeyErased(NTMobileError):
    """The key that opens an item was erased, or is of an earlier enrolment; have it sent anew."""
