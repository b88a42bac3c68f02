"""Why moving averages that started at mean 0 and variance s0 collapse on the way: a formula without a fitted constant.

After t updates r = decay^t of the start is left, so a layer divides by sqrt(s0 r + (1 - r) v) in place of sqrt(v), its
own deviation (epsilon left out). What conv1 and conv2 pass on has then shrunk by the product of the two, to R times
what it should be, R = sqrt(v1 v2 / (d1 d2)) with d = s0 r + (1 - r) v. The next layer, fc1, subtracts (1 - r) of the
mean that it has in training from what has R times that mean: relative to it, (1 - r) / R - 1 =: O(r) too much.

    O(r) = (1 - r) sqrt((s0 r + (1 - r) v1) (s0 r + (1 - r) v2) / (v1 v2)) - 1

ln(1 + O) is a sum of logarithms of functions linear in r, hence concave, and 0 at r = 0. So O is positive somewhere,
the dip, if and only if its slope there is: s0 (1 / v1 + 1 / v2) / 2 - 2 > 0. It then has one maximum, the dip's bottom,
and one more zero, where accuracy is back to normal while much of the start is left. All arguments are positive numbers,
0 <= r <= 1; v1 and v2 are means over channels, so that the formula is approximate.
"""

import numpy as np
from numpy.polynomial import Polynomial

LIMIT = 0.25  # argmax of r (1 - r)^3, the bottom for v1 -> 0, v2 -> inf: there (1 + O)^2 -> s0 r (1 - r)^3 / v1


def excess(r: float, v1: float, v2: float, s0: float = 1.0) -> float:
    """O(r)."""
    return float(np.sqrt(max(squared(v1, v2, s0)(r), 0.0))) - 1


def condition(v1: float, v2: float, s0: float = 1.0) -> float:
    """There is a dip if and only if this is above 4."""
    return s0 * (1 / v1 + 1 / v2)


def bottom(v1: float, v2: float, s0: float = 1.0) -> float | None:
    """The r at which O is greatest; None where there is no dip. r = 1, where (1 + O)^2 has a double root, is none."""
    return inside(squared(v1, v2, s0).deriv()) if condition(v1, v2, s0) > 4 else None


def zero(v1: float, v2: float, s0: float = 1.0) -> float | None:
    """The r between 0 and 1 at which O is 0, the dip's early end; None where there is no dip."""
    if condition(v1, v2, s0) <= 4:
        return None
    return inside(Polynomial((squared(v1, v2, s0) - 1).coef[1:]))  # less the root r = 0


def later(r: float, v1: float, v2: float, s0: float) -> float | None:
    """By how much in age, -ln r, a start of variance s0 in place of 1 moves the late side of the dip, where O is O(r).

    On that side O falls with age. For small r it is r (s0 (1 / v1 + 1 / v2) / 2 - 2), so the shift tends to the
    logarithm of the ratio of these slopes, and for v1 -> 0 to ln s0. None where either start makes no dip, or r is not
    on the late side, or O never comes to O(r).
    """
    usual, turned = bottom(v1, v2), bottom(v1, v2, s0)
    if usual is None or turned is None or not 0 < r < usual or excess(turned, v1, v2, s0) < excess(r, v1, v2):
        return None
    if r < 1e-8:  # there the root would drown in rounding
        return float(np.log((condition(v1, v2, s0) - 4) / (condition(v1, v2) - 4)))
    same = squared(v1, v2, s0) - squared(v1, v2, 1.0)(r)
    return float(np.log(r / inside(same, turned)))


def squared(v1: float, v2: float, s0: float) -> Polynomial:
    """(1 + O)^2, a polynomial in r."""
    d1, d2 = (Polynomial([v, s0 - v]) / v for v in (v1, v2))
    return Polynomial([1, -1]) ** 2 * d1 * d2


def inside(polynomial: Polynomial, end: float = 1.0) -> float:
    """Its least root between 0 and `end`."""
    roots = polynomial.roots()
    real = roots.real[np.abs(roots.imag) < 1e-6]
    return float(min(real[(real > 1e-12) & (real < end + 1e-9)]))
