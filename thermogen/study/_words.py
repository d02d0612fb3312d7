"""Numbers as the page writes them."""

import numpy as np
from markupsafe import Markup


def percent(share: float | None) -> str:
    """A share that never rounds up to 100 %."""
    if share is None:
        return "–"
    text = f"{100 * share:.1f}"
    return f"{'> 99.9' if text == '100.0' and share < 1 else text.removesuffix('.0')} %"


def scientific(value: float | None) -> str | Markup:
    """A mantissa of two digits and a power of ten."""
    if value is None:
        return "–"
    mantissa, exponent = f"{value:.1e}".split("e")
    return Markup(f"{mantissa} × 10<sup>{int(exponent)}</sup>".replace("-", "−")) if value else "0"


def significant(value: float | None, digits: int = 3) -> str | Markup:
    """A number to so many digits; what is very small or large as a power of ten."""
    if value is None or np.isnan(value):
        return "–"
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text.replace("-", "−")
    mantissa, exponent = text.split("e")
    return Markup(f"{mantissa} × 10<sup>{int(exponent)}</sup>".replace("-", "−"))


def interval(ends: tuple[float, float], digits: int = 2) -> Markup:
    """Both ends of an interval, in words."""
    low, high = (significant(end, digits) for end in ends)
    return Markup("{} to {}").format(low, high)
