"""Messages made from their declarations: hypothesis strategies for every declared type."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

import ntmobile.wire.messages  # noqa: F401 - declares them all
from ntmobile.wire.codec import Message
from ntmobile.wire.messages.fields import Endpoint

#: The characters that each pattern of the declarations allows.
ALPHABETS = {
    r"\A[a-z0-9.-]+\Z": "abcxyz019.-",
    r"\A[a-z0-9.-]*\Z": "abcxyz019.-",
    r"\A[a-z0-9.*-]+\Z": "abcxyz019.*-",
    r"\A[A-Za-z0-9._-]*\Z": "abzABZ019._-",
}


def _bounds(found: Any, default: int) -> tuple[int, int]:
    low = found.min_length or 0
    high = default if found.max_length is None else found.max_length
    return low, high


def _integers(found: inspect.IntType) -> st.SearchStrategy[int]:
    low = -(1 << 63) if found.ge is None else found.ge
    high = (1 << 64) - 1 if found.le is None else found.le
    if found.lt is not None:
        high = found.lt - 1
    return st.integers(low, high)


def of_type(found: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a field's type, within its bounds and up to them."""
    match found:
        case inspect.Metadata(inner):
            return of_type(inner)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.IntType():
            return _integers(found)
        case inspect.BytesType():
            low, high = _bounds(found, 64)
            return st.one_of(
                st.binary(min_size=low, max_size=min(high, low + 64)),
                st.sampled_from([bytes(low), b"\xff" * high]),
            )
        case inspect.StrType():
            low, high = _bounds(found, 64)
            if found.pattern is None:
                return st.text(min_size=low, max_size=min(high, 40))
            return st.text(ALPHABETS[found.pattern], min_size=low, max_size=high)
        case inspect.VarTupleType(item):
            low, high = _bounds(found, 4)
            return st.lists(of_type(item), min_size=low, max_size=min(high, low + 3)).map(tuple)
        case inspect.LiteralType(values):
            return st.sampled_from(values)
        case inspect.UnionType(types):
            return st.one_of(*(of_type(each) for each in types))
        case inspect.StructType(cls):
            return of_struct(cls)
    raise AssertionError(f"a field of a type that has no strategy yet: {found}")


def of_struct(cls: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Values of a structure or message."""
    if cls is Endpoint:
        address = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
        return st.builds(Endpoint, address, st.integers(1, 65535))
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return st.builds(cls, **{each.name: of_type(each.type) for each in info.fields})


def of_message(cls: type[Message]) -> st.SearchStrategy[Message]:
    """Values of a message."""
    return of_struct(cls)


def largest(found: inspect.Type) -> Any:
    """A value of a type whose encoding is as large as its bounds allow."""
    match found:
        case inspect.Metadata(inner):
            return largest(inner)
        case inspect.BoolType():
            return True
        case inspect.IntType():
            if found.lt is not None:
                return found.lt - 1
            return (1 << 64) - 1 if found.le is None else found.le
        case inspect.BytesType():
            return b"\xff" * _bounds(found, 64)[1]
        case inspect.StrType():
            return "a" * _bounds(found, 64)[1]
        case inspect.VarTupleType(item):
            return (largest(item),) * _bounds(found, 4)[1]
        case inspect.LiteralType(values):
            return max(values, key=lambda value: len(str(value)))
        case inspect.UnionType(types):
            return largest(next(one for one in types if not isinstance(one, inspect.NoneType)))
        case inspect.StructType(cls):
            if cls is Endpoint:
                return Endpoint(b"\xff" * 16, 65535)
            return cls(**{each.name: largest(each.type) for each in found.fields})
    raise AssertionError(f"a field of a type that has no largest value yet: {found}")


def largest_message(cls: type[Message]) -> Message:
    """The message whose encoding is as large as its bounds allow."""
    found: Message = largest(inspect.type_info(cls))
    return found
