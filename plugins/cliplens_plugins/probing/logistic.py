"""Logistic regression with an L2 penalty, on standardised columns."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from scipy.special import expit

PENALTY = 1e-3


@dataclass(frozen=True)
class Logistic:
    """A fitted logistic regression. The score of a row is `row @ weights + bias`, the logarithm of the odds."""

    weights: Float[np.ndarray, " column"]
    bias: float

    def score(self, rows: Float[np.ndarray, "row column"]) -> Float[np.ndarray, " row"]:
        """Return the score of each row."""
        return rows @ self.weights + self.bias


def fit_logistic(
    rows: Float[np.ndarray, "row column"], labels: Bool[np.ndarray, " row"], penalty: float = PENALTY
) -> Logistic:
    """Return the logistic regression of labels on rows.

    Columns are standardised first. Then L-BFGS minimises mean log loss + `penalty / 2` * squared weights, starting from
    zero. The returned weights apply to the original columns; a constant column has weight 0.
    """
    mean, spread = rows.mean(0), rows.std(0)
    varies = spread > 1e-12 * (1 + np.abs(mean))
    scaled = (rows - mean) / np.where(varies, spread, 1.0) * varies
    sign = np.where(labels, 1.0, -1.0)

    def loss(parameters: Float[np.ndarray, " parameter"]) -> tuple[float, Float[np.ndarray, " parameter"]]:
        weights = parameters[:-1]
        margin = sign * (scaled @ weights + parameters[-1])
        slope = -sign * expit(-margin) / len(sign)
        gradient = np.append(scaled.T @ slope + penalty * weights, slope.sum())
        return float(np.logaddexp(0, -margin).mean() + penalty / 2 * weights @ weights), gradient

    found = minimize(loss, np.zeros(rows.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    weights = found[:-1] / np.where(varies, spread, 1.0) * varies
    return Logistic(weights, float(found[-1] - mean @ weights))
