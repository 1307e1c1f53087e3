"""What a token costs: the one constant that the tests' fork has worse and the tests' patch has better."""

import hashlib

TOKEN_WORK = 7000  # rounds of PBKDF2 per token


def compute(tokens: float, factor: float) -> None:
    """Spend the CPU time of so many tokens; C code that leaves the interpreter free."""
    hashlib.pbkdf2_hmac("sha256", b"token", b"work", max(1, round(tokens * TOKEN_WORK * factor)))


def next_token(prompt: list[int], index: int) -> int:
    """The same token for the same prompt and place, whatever a token costs."""
    seed = hashlib.sha256(f"{prompt}/{index}".encode()).digest()
    return 300 + int.from_bytes(seed[:4], "big") % 20000
