"""The contrast of one picture given to another, at each scale.

A style loss compares the variances and covariances of features over a whole picture, and a network balances its strokes
by them. Strokes that come from another frame are the right ones, but as a whole they have a few percent more or less
contrast than this frame's own, which is invisible, and raises the style loss by up to a half.
"""

import cv2
import numpy as np

SCALES = 5  # each twice as coarse as the one before: up to 32 pixels, as strokes are


def with_contrast(picture: np.ndarray, like: np.ndarray, scales: int = SCALES) -> np.ndarray:
    """A picture whose detail has, at each scale, the variances and covariances of colours of another's.

    What is coarser remains as it is.

    Args:
        picture: float32 H×W×3, in levels of 255.
        like: The other, of the same size.
        scales: Number of scales.
    """
    if not scales:
        return picture
    (coarse, detail), (coarse_like, detail_like) = split(picture), split(like)
    changed = with_contrast(coarse, coarse_like, scales - 1)
    result: np.ndarray = enlarged(changed, picture) + cv2.transform(detail, colour_transfer(detail, detail_like))
    return result


def split(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture of half the size, and the detail that it lacks: a level of a Laplacian pyramid."""
    coarse: np.ndarray = cv2.pyrDown(picture)
    return coarse, picture - enlarged(coarse, picture)


def enlarged(coarse: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A picture of half the size, enlarged to that of another."""
    height, width = like.shape[:2]
    result: np.ndarray = cv2.pyrUp(coarse, dstsize=(width, height))
    return result


def colour_transfer(detail: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The 3×3 matrix by which colours get the covariances of others, and change the least.

    The linear Monge-Kantorovitch mapping (Pitié and Kokaram 2007, "The linear Monge-Kantorovitch linear colour mapping
    for example-based colour transfer"), of details, whose mean is 0.
    """
    given, wanted = covariances(detail), covariances(like)
    root, inverse = power(given, 0.5), power(given, -0.5)
    matrix: np.ndarray = (inverse @ power(root @ wanted @ root, 0.5) @ inverse).astype(np.float32)
    return matrix


def covariances(detail: np.ndarray) -> np.ndarray:
    """Of the three colours, 3×3; with those of rounding, so that a flat picture has some."""
    colours = [each.ravel() for each in cv2.split(detail)]  # three times as quick as a product of matrices
    products = np.array([[one @ other for one in colours] for other in colours], np.float64)
    result: np.ndarray = products / colours[0].size + np.eye(3)
    return result


def power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """A power of a symmetric, positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    result: np.ndarray = (vectors * values**exponent) @ vectors.T
    return result
