"""Names and numbers that follow from the seed, whatever else happens between them.

Each value is a keyed hash of what it belongs to, never the next draw of a shared generator: a
second client that asks for something in between therefore changes nobody else's identity.
"""

import hashlib
import uuid

# Kubernetes leaves vowels and look-alikes out of generated suffixes.
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class Identity:
    """Deterministic values for one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._key = f"pitwall-simulator-{seed}".encode()
        self._counts: dict[tuple[str, ...], int] = {}

    def number(self, *parts: object) -> int:
        """128 bits from the seed and `parts`."""
        text = "\x1f".join(str(part) for part in parts).encode()
        digest = hashlib.blake2b(text, digest_size=16, key=self._key).digest()
        return int.from_bytes(digest, "big")

    def fraction(self, *parts: object) -> float:
        """From 0 (in) to 1 (out)."""
        return (self.number(*parts) >> 64) / 2.0**64

    def uuid(self, *parts: object) -> str:
        return str(uuid.UUID(int=self.number(*parts), version=4))

    def suffix(self, *parts: object, length: int = 5) -> str:
        number = self.number(*parts)
        letters = []
        for _ in range(length):
            number, digit = divmod(number, len(_SUFFIX_LETTERS))
            letters.append(_SUFFIX_LETTERS[digit])
        return "".join(letters)

    def occurrence(self, *parts: str) -> int:
        """How often this was asked for `parts` before: 0, 1, 2, ..."""
        count = self._counts.get(parts, 0)
        self._counts[parts] = count + 1
        return count
