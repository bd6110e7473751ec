"""Receivers' addresses: read where the site keeps its secrets, at each sending, and never shown or logged."""

import os
import re

from app.alerts.config import Receiver
from app.errors import PitwallError

MAX_LENGTH = 4096
_HIDDEN = "***"


class AddressError(PitwallError):
    """A receiver's address can't be had: says where it should be, never what it is."""


def read_address(receiver: Receiver) -> str:
    """The apprise URL of a receiver. Raises AddressError."""
    if receiver.url_env is not None:
        value, where = os.environ.get(receiver.url_env, ""), f"the variable {receiver.url_env}"
    else:
        where = f"the file {receiver.url_file}"
        try:
            assert receiver.url_file is not None
            value = receiver.url_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise AddressError(
                f"{receiver.name}: {where} can't be read ({type(error).__name__})."
            ) from error
    value = value.strip()
    if not value or len(value) > MAX_LENGTH or "://" not in value:
        raise AddressError(f"{receiver.name}: {where} holds no address such as slack://...")
    return value


def scheme_of(address: str) -> str:
    """The service that an address names: slack, mailto, json..."""
    return address.partition("://")[0].lower()


def scrub(text: str, address: str) -> str:
    """The text without anything of the address but its scheme: for errors that other people's code wrote."""
    rest = address.partition("://")[2]
    pieces = {address, rest, *re.split(r"[/?&=:@]", rest)}
    for piece in sorted(pieces, key=len, reverse=True):
        if len(piece) >= 4:
            text = text.replace(piece, _HIDDEN)
    return text
