"""Counts in words."""


def number_of(count: int, noun: str) -> str:
    """'1 output', '2 outputs', '1,797 examples', '2 classes'."""
    return f"{count:,} {noun if count == 1 else noun + ('es' if noun.endswith('s') else 's')}"
