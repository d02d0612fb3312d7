"""Words and marks in cells: what is missing, what is a number, and what says yes or no."""

# The bit 1 first. The words of one column are those of one pair.
PAIRS = (("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"), ("on", "off"))
# What stands for an unknown value, in lower case.
_MISSING = frozenset({"", "na", "n/a", "<na>", "nan", "null", "none", "?", "."})


def is_missing(text: str | None) -> bool:
    """Whether a text, or no text, stands for an unknown value."""
    return text is None or text.strip().lower() in _MISSING


def pair_of(text: str) -> tuple[str, str] | None:
    """The pair that a word belongs to, if any."""
    word = text.strip().lower()
    return next((pair for pair in PAIRS if word in pair), None)


def as_number(text: str) -> float | None:
    """The number that a text is, with a point or a comma before its decimals; else None."""
    if "_" in text:  # which Python takes between digits
        return None
    for form in (text, text.replace(",", ".") if text.count(",") == 1 else text):
        try:
            return float(form)
        except ValueError:
            continue
    return None
