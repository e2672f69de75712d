"""MATLAB's imresize, as an independent reference of bicubic resizing."""

import math

import numpy as np


def keys_kernel(x):
    """Keys 1981, a = −0.5."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def imresize_row(row, size):
    """One row through MATLAB's imresize, written down from its source, in float64."""
    scale = size / len(row)
    widening = min(1, scale)
    width = 4 / widening
    mirrored = [*range(len(row)), *reversed(range(len(row)))]
    result = []
    for x in range(1, size + 1):
        center = x / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(center - width / 2)
        places = [left + i for i in range(math.ceil(width) + 2)]
        weights = np.array([widening * keys_kernel(widening * (center - place)) for place in places])
        values = [row[mirrored[(place - 1) % len(mirrored)]] for place in places]
        result.append(float(np.dot(weights, values) / weights.sum()))
    return result


def imresize(image, height, width):
    rows = np.array([imresize_row(row, width) for row in image])
    return np.array([imresize_row(column, height) for column in rows.T]).T
