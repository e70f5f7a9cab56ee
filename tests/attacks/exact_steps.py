"""The smallest step in the box onto a plane, by general-purpose solvers."""

import numpy as np
import scipy.optimize

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}  # order of the norm that measures a plane's normal


def exact_step(point: np.ndarray, normal: np.ndarray, gap: float, norm: str) -> np.ndarray:
    """Return the smallest step (D,) in the box with normal·step = gap."""
    n = len(point)
    if norm == "linf":  # variables: the step and its norm
        sides = np.vstack([np.hstack([s * np.eye(n), -np.ones((n, 1))]) for s in (1, -1)])
        solved = scipy.optimize.linprog(
            np.append(np.zeros(n), 1.0),
            A_ub=sides,
            b_ub=np.zeros(2 * n),
            A_eq=np.append(normal, 0.0)[None],
            b_eq=[gap],
            bounds=[*zip(-point, 1 - point, strict=True), (0, None)],
        )
    elif norm == "l1":  # variables: the step's upward and its downward part
        solved = scipy.optimize.linprog(
            np.ones(2 * n),
            A_eq=np.append(normal, -normal)[None],
            b_eq=[gap],
            bounds=[(0, room) for room in (*(1 - point), *point)],
        )
        return solved.x[:n] - solved.x[n:]
    else:
        solved = scipy.optimize.minimize(
            lambda step: step @ step,
            np.zeros(n),
            jac=lambda step: 2 * step,
            bounds=[*zip(-point, 1 - point, strict=True)],
            constraints={"type": "eq", "fun": lambda s: normal @ s - gap, "jac": lambda s: normal},
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 300},
        )
    assert solved.success
    return solved.x[:n]


def length(step: np.ndarray, norm: str) -> float:
    return float(np.linalg.norm(step, ORDER[norm]))
