"""Slow float64 oracles, written from the papers: one image and one class at a time, plain numpy.

Nothing here is shared with the code under test: S_k is a full (D,D) matrix that is inverted, its
determinant is a determinant, and a posterior is a quotient of exponentials.
"""

import math

import numpy as np

Array = np.ndarray


def softmax_logits(features: Array, weight: Array, bias: Array) -> Array:
    """z_k = w_k · f + b_k."""
    logits = np.zeros((len(features), len(weight)))
    for i, feature in enumerate(features):
        for k, row in enumerate(weight):
            logits[i, k] = sum(w * f for w, f in zip(row, feature, strict=True)) + bias[k]
    return logits


def cross_entropy(logits: Array, labels: Array) -> Array:
    """−log(e^{z_y} / Σ_k e^{z_k}); only for logits whose exponentials are numbers."""
    losses = np.zeros(len(logits))
    for i, (row, label) in enumerate(zip(logits, labels, strict=True)):
        losses[i] = -math.log(math.exp(row[label]) / sum(math.exp(z) for z in row))
    return losses


def posteriors(logits: Array) -> Array:
    """e^{z_k} / Σ_j e^{z_j}; only for logits whose exponentials are numbers."""
    return np.array([[math.exp(z) / sum(math.exp(t) for t in row) for z in row] for row in logits])


def label_smoothing(logits: Array, labels: Array, epsilon: float) -> Array:
    """−Σ_k q'(k) log p(k), q'(k) = (1 − epsilon)[k = y] + epsilon/K (Szegedy et al., section 7)."""
    losses = np.zeros(len(logits))
    for i, (row, label) in enumerate(zip(posteriors(logits), labels, strict=True)):
        for k, p in enumerate(row):
            losses[i] -= ((1.0 - epsilon) * (k == label) + epsilon / len(row)) * math.log(p)
    return losses


def focal(logits: Array, labels: Array, gamma: float) -> Array:
    """−(1 − p_t)^gamma log p_t (Lin et al., equation 4)."""
    of_label = [row[label] for row, label in zip(posteriors(logits), labels, strict=True)]
    return np.array([-((1.0 - p) ** gamma) * math.log(p) for p in of_label])


def logit_norm(logits: Array, labels: Array, temperature: float) -> Array:
    """−log(e^{f_y/(tau‖f‖)} / Σ_k e^{f_k/(tau‖f‖)}), f the logits (Wei et al. 2022)."""
    lengths = [math.sqrt(sum(z**2 for z in row)) for row in logits]
    return cross_entropy(logits / (temperature * np.array(lengths)[:, None]), labels)


def one_vs_rest(logits: Array, labels: Array) -> Array:
    """−log p_y − Σ_{k≠y} log(1 − p_k), p_k = 1/(1 + e^{−z_k}) (Padhy et al. 2020)."""
    losses = np.zeros(len(logits))
    for i, (row, label) in enumerate(zip(logits, labels, strict=True)):
        for k, z in enumerate(row):
            p = 1.0 / (1.0 + math.exp(-z))
            losses[i] -= math.log(p if k == label else 1.0 - p)
    return losses


def center_regulariser(features: Array, labels: Array, centers: Array, weight: float) -> Array:
    """(lambda/2) ‖f − c_y‖² (Wen et al. 2016, equation 2, per image)."""
    terms = np.zeros(len(features))
    for i, (feature, label) in enumerate(zip(features, labels, strict=True)):
        for f, c in zip(feature, centers[label], strict=True):
            terms[i] += 0.5 * weight * (f - c) ** 2
    return terms


def center_update(features: Array, labels: Array, centers: Array, rate: float) -> Array:
    """Delta c_j = Σ_i [y_i = j](c_j − f_i) / (1 + Σ_i [y_i = j]); c_j − rate · Delta c_j."""
    moved = centers.copy()
    for j in range(len(centers)):
        total, count = np.zeros(centers.shape[1]), 0
        for feature, label in zip(features, labels, strict=True):
            if label == j:
                total, count = total + (centers[j] - feature), count + 1
        moved[j] = centers[j] - rate * total / (1 + count)
    return moved


def mahalanobis(features: Array, centers: Array, covariances: Array) -> Array:
    """d_ik = ½ (f_i − mu_k)ᵀ S_k⁻¹ (f_i − mu_k), covariances (K,D,D) (Wan et al., equation 18)."""
    distances = np.zeros((len(features), len(centers)))
    for i, feature in enumerate(features):
        for k, center in enumerate(centers):
            difference = feature - center
            distances[i, k] = 0.5 * difference @ np.linalg.inv(covariances[k]) @ difference
    return distances


def gm_posterior(features: Array, centers: Array, covariances: Array, priors: Array) -> Array:
    """Bayes' rule with p(k) |S_k|^{-1/2} e^{-d_k}; the (2π)^{-D/2} cancels."""
    distances = mahalanobis(features, centers, covariances)
    posterior = np.zeros_like(distances)
    for i in range(len(features)):
        joint = [
            priors[k] * np.linalg.det(covariances[k]) ** -0.5 * math.exp(-distances[i, k])
            for k in range(len(centers))
        ]
        posterior[i] = [value / sum(joint) for value in joint]
    return posterior


def gm_terms(
    features: Array,
    labels: Array,
    centers: Array,
    covariances: Array,
    priors: Array,
    alpha: float,
    weight: float,
) -> tuple[Array, Array]:
    """Large-margin GM loss (Wan et al., equation 17) and weighted likelihood term, per image."""
    distances = mahalanobis(features, centers, covariances)
    classification, regulariser = np.zeros(len(features)), np.zeros(len(features))
    for i, label in enumerate(labels):
        joint = []
        for k in range(len(centers)):
            margin = alpha * distances[i, label] if k == label else 0.0
            volume = np.linalg.det(covariances[k]) ** -0.5
            joint.append(priors[k] * volume * math.exp(-distances[i, k] - margin))
        classification[i] = -math.log(joint[label] / sum(joint))
        log_det = math.log(np.linalg.det(covariances[label]))
        regulariser[i] = weight * (distances[i, label] + 0.5 * log_det)
    return classification, regulariser


def lgm_feature_gradient(
    features: Array, labels: Array, centers: Array, covariances: Array, alpha: float, weight: float
) -> Array:
    """Wan et al., equation 23, uniform priors, p the posterior with the margin in it:

    [(1 − p_y)(1 + alpha) + lambda] S_y⁻¹ (f − mu_y) − Σ_{k≠y} p_k S_k⁻¹ (f − mu_k).
    """
    distances = mahalanobis(features, centers, covariances)
    gradients = np.zeros_like(features)
    for i, (feature, label) in enumerate(zip(features, labels, strict=True)):
        joint = []
        for k in range(len(centers)):
            scale = 1.0 + alpha if k == label else 1.0
            volume = np.linalg.det(covariances[k]) ** -0.5
            joint.append(volume * math.exp(-scale * distances[i, k]))
        for k in range(len(centers)):
            posterior = joint[k] / sum(joint)
            pull = np.linalg.inv(covariances[k]) @ (feature - centers[k])
            if k == label:
                gradients[i] += ((1.0 - posterior) * (1.0 + alpha) + weight) * pull
            else:
                gradients[i] -= posterior * pull
    return gradients


def cosine_logits(features: Array, weight: Array, scale: float) -> Array:
    """scale · cos(w_k, f)."""
    logits = np.zeros((len(features), len(weight)))
    for i, feature in enumerate(features):
        for k, row in enumerate(weight):
            logits[i, k] = scale * (row @ feature) / math.sqrt((row @ row) * (feature @ feature))
    return logits
