"""CReLU's pooling and its gradient on a CPU: loops over pixels for which PyTorch has no one operation, in Numba.

Memory is what they cost, so they read and write each pixel once. What is compiled is kept in __pycache__. Arrays are
contiguous and of one float type, but for the places: pixels [N, H, W, C], in windows of 2 x 2 whose places are

    0 1
    2 3
"""

from typing import Any

import numba
from numba import njit, prange

# Threads of its own: by OpenMP Numba would change the number of PyTorch's, and so the bits of its sums.
numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]
Array = Any  # Numba compiles for what it is given; float32 in the study, float64 in the parity test


def use_threads(threads: int) -> None:
    """As many threads, or one a core where that is fewer. No result depends on it."""
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


@njit()
def larger(best: Array, place: int, value: Array, its_place: int) -> tuple[Array, int]:
    """The larger of two values with its place: the first of equal ones, and a NaN before all, as PyTorch has it."""
    is_larger = (value > best) | (value != value)
    return value if is_larger else best, its_place if is_larger else place


@njit(fastmath={"contract"})
def multiply_add(a: Array, b: Array, c: Array) -> Array:
    return a * b + c  # rounded once, as in PyTorch's addcmul


@njit(cache=True, parallel=True, error_model="numpy")
def pool(x: Array, mean: Array, centre: bool, y: Array, places: Array) -> None:
    """Write each window's maxima of x - mean and of mean - x, y [N, H/2, W/2, 2C], and where they stand.

    `places` [N, H/2, W/2, C] int32 takes the place of the former plus 4 times that of the latter. `mean` [C]; with
    `centre`, mean - x is written over x.
    """
    n, h, w, c = x.shape
    for image in prange(n):
        for row in range(h // 2):
            for column in range(w // 2):
                x0, x1 = x[image, 2 * row, 2 * column], x[image, 2 * row, 2 * column + 1]
                x2, x3 = x[image, 2 * row + 1, 2 * column], x[image, 2 * row + 1, 2 * column + 1]
                maxima, window_places = y[image, row, column], places[image, row, column]
                for k in range(c):  # as vector instructions, since it has no branch and does not write what it reads
                    m = mean[k]
                    high, high_at = larger(x0[k], 0, x1[k], 1)
                    high, high_at = larger(high, high_at, x2[k], 2)
                    high, high_at = larger(high, high_at, x3[k], 3)
                    low, low_at = larger(m - x0[k], 0, m - x1[k], 1)
                    low, low_at = larger(low, low_at, m - x2[k], 2)
                    low, low_at = larger(low, low_at, m - x3[k], 3)
                    maxima[k], maxima[c + k] = high - m, low
                    window_places[k] = high_at + 4 * low_at
                if centre:
                    for place in range(4):
                        pixel = x[image, 2 * row + place // 2, 2 * column + place % 2]
                        for k in range(c):
                            pixel[k] = mean[k] - pixel[k]


@njit(cache=True, parallel=True, error_model="numpy")
def unpool(x: Array, factor: Array, constant: Array, gradient: Array, scale: Array, places: Array) -> None:
    """Write over x: x * factor + constant, and at the places of `pool` the gradient of its y, by scale and -scale.

    `factor`, `constant` and `scale` [C]; `gradient` [N, H/2, W/2, 2C].
    """
    n, h, w, c = x.shape
    for image in prange(n):
        for row in range(h // 2):
            for column in range(w // 2):
                g, window_places = gradient[image, row, column], places[image, row, column]
                for place in range(4):
                    pixel = x[image, 2 * row + place // 2, 2 * column + place % 2]
                    for k in range(c):
                        value = multiply_add(pixel[k], factor[k], constant[k])
                        value = value + g[k] * scale[k] if window_places[k] & 3 == place else value
                        value = value - g[c + k] * scale[k] if window_places[k] >> 2 == place else value
                        pixel[k] = value
