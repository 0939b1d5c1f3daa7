"""How sure a share is: Wilson's interval (1927), which is of use for few observations and for shares of 0 and 1 too."""

from math import sqrt

_Z = 1.959963984540054  # of 95%


def wilson_bounds(successes: float, number: int) -> tuple[float, float]:
    """The 95% interval of a share; halves may be among the successes, and without any observation it is 0 to 1."""
    if number == 0:
        return 0.0, 1.0
    share = successes / number
    centre = (share + _Z**2 / (2 * number)) / (1 + _Z**2 / number)
    half = _Z * sqrt(share * (1 - share) / number + _Z**2 / (4 * number**2)) / (1 + _Z**2 / number)
    return max(0.0, centre - half), min(1.0, centre + half)
