"""A self-signed certificate for the simulator's Kubernetes face.

Clients of Kubernetes send a bearer token over TLS only, so the face needs a certificate, and it
must come without a package or a program that a fresh machine may lack. The key is made anew for
each process, signs this one certificate on loopback and is worth nothing elsewhere: the
arithmetic below is not hardened against whoever can measure it.

Sources: SEC 1 and FIPS 186-5 (ECDSA over P-256), RFC 5280 (certificate), RFC 5915 (key).
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_LIFE = timedelta(days=365)

Point = tuple[int, int] | None  # None: the point at infinity


@dataclass(frozen=True)
class Certificate:
    """PEM texts."""

    certificate: str
    key: str


def _add(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return one or other
    if one[0] == other[0]:
        if (one[1] + other[1]) % _P == 0:
            return None
        slope = 3 * (one[0] * one[0] - 1) * pow(2 * one[1], -1, _P) % _P  # a = -3
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _P) % _P
    x = (slope * slope - one[0] - other[0]) % _P
    return x, (slope * (one[0] - x) - one[1]) % _P


def _times(factor: int, point: Point) -> tuple[int, int]:
    found: Point = None
    while factor:
        if factor & 1:
            found = _add(found, point)
        point = _add(point, point)
        factor >>= 1
    assert found is not None
    return found


def _sign(key: int, message: bytes) -> bytes:
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    while True:
        nonce = secrets.randbelow(_N - 1) + 1
        r = _times(nonce, _G)[0] % _N
        s = pow(nonce, -1, _N) * (digest + r * key) % _N
        if r and s:
            return _sequence(_integer(r), _integer(s))


def _der(tag: int, *contents: bytes) -> bytes:
    body = b"".join(contents)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _sequence(*contents: bytes) -> bytes:
    return _der(0x30, *contents)


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _bits(raw: bytes, *, unused: int = 0) -> bytes:
    return _der(0x03, bytes([unused]), raw)


def _octets(raw: bytes) -> bytes:
    return _der(0x04, raw)


def _oid(text: str) -> bytes:
    parts = [int(part) for part in text.split(".")]
    raw = bytearray([parts[0] * 40 + parts[1]])
    for part in parts[2:]:
        groups = [part & 0x7F]
        while part := part >> 7:
            groups.append(0x80 | part & 0x7F)
        raw += bytes(reversed(groups))
    return _der(0x06, bytes(raw))


def _time(moment: datetime) -> bytes:
    return _der(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())


def _extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    flag = _der(0x01, b"\xff") if critical else b""
    return _sequence(_oid(oid), flag, _octets(value))


def _pem(label: str, raw: bytes) -> str:
    text = base64.b64encode(raw).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def make_certificate() -> Certificate:
    """A new key and a certificate of it for localhost and 127.0.0.1, valid for a year."""
    key = secrets.randbelow(_N - 1) + 1
    x, y = _times(key, _G)
    point = b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")
    curve = _oid("1.2.840.10045.3.1.7")
    public = _sequence(_sequence(_oid("1.2.840.10045.2.1"), curve), _bits(point))
    name = _sequence(_der(0x31, _sequence(_oid("2.5.4.3"), _der(0x0C, b"pitwall-simulator"))))
    algorithm = _sequence(_oid("1.2.840.10045.4.3.2"))
    since = datetime.now(UTC) - timedelta(hours=1)
    key_id = hashlib.sha1(point, usedforsecurity=False).digest()
    extensions = _sequence(
        _extension("2.5.29.19", _sequence(_der(0x01, b"\xff")), critical=True),
        _extension("2.5.29.15", _bits(b"\x84", unused=2), critical=True),
        _extension("2.5.29.37", _sequence(_oid("1.3.6.1.5.5.7.3.1"))),
        _extension(
            "2.5.29.17",
            _sequence(_der(0x82, b"localhost"), _der(0x87, bytes([127, 0, 0, 1]))),
        ),
        _extension("2.5.29.14", _octets(key_id)),
        _extension("2.5.29.35", _sequence(_der(0x80, key_id))),
    )
    to_sign = _sequence(
        _der(0xA0, _integer(2)),
        _integer(secrets.randbits(120) | 1),
        algorithm,
        name,
        _sequence(_time(since), _time(since + _LIFE)),
        name,
        public,
        _der(0xA3, extensions),
    )
    certificate = _sequence(to_sign, algorithm, _bits(_sign(key, to_sign)))
    private = _sequence(
        _integer(1),
        _octets(key.to_bytes(32, "big")),
        _der(0xA0, curve),
        _der(0xA1, _bits(point)),
    )
    return Certificate(_pem("CERTIFICATE", certificate), _pem("EC PRIVATE KEY", private))
