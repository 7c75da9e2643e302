"""The thousand messages that every client sends: the same ones in each language (messages.mjs)."""

COUNT = 1000
# On both sides of each form of length, of a TLS record and of what TCP carries at once.
SIZES = [0, 1, 2, 125, 126, 127, 1000, 1459, 4096, 16383, 16384, 16385, 65535, 65536, 100_000, 7]
LETTERS = "aé漢🦀"


def text(n):
    """Of about so many bytes as its size says, with characters of one to four bytes."""
    times, rest = divmod(SIZES[n % len(SIZES)], len(LETTERS.encode()))
    return LETTERS * times + str(n % 10) * rest


def message(n):
    """Text and bytes in turn."""
    if n // len(SIZES) % 2 == 0:
        return text(n)
    return bytes((n * 31 + k * 7) & 0xFF for k in range(256)) * (SIZES[n % len(SIZES)] // 256)
