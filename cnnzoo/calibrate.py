"""How far a net's figures can be trusted: probabilities that mean what they say, and what chance does to accuracies.

A leaf: numbers in, numbers out.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm

BINS = 15  # of confidence, as in Guo et al.
LEVEL = 0.95  # of confidence intervals
TEMPERATURES = 1e-3, 1e3  # the range that is searched


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature T for which softmax(logits / T) suits the targets best.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2: it minimises
    the mean negative log-likelihood, which is convex in 1 / T. Where every image is right that has no minimum, so each
    target leaves 1 / (N + 2) to the most likely other class, after Platt ("Probabilistic Outputs for Support Vector
    Machines", 1999, section 2.2): few images claim no more than they can show. In simulations with 20 to 150 images the
    log-likelihood of new ones was at most 0.05 below that of the plain fit, and up to 1 above.

    Args:
        logits: `(N, K)`, of images that the net was not trained on.
        targets: `(N,)`, the true classes.

    Returns:
        T, between 0.001 and 1,000; 1.0 where there is nothing to fit (no image, one class, a logit that is not finite).
    """
    count, classes = logits.shape
    if count == 0 or classes < 2 or not np.isfinite(logits).all():
        return 1.0
    margins = logits - logits.max(axis=1, keepdims=True)  # at most 0
    is_target = np.arange(classes) == targets[:, None]
    of_target = margins[is_target].mean(dtype=np.float64)
    of_next = np.where(is_target, -np.inf, margins).max(axis=1).mean(dtype=np.float64)
    wanted = of_target + (of_next - of_target) / (count + 2)
    scaled = np.empty_like(margins)  # one for all trials, in the logits' own precision

    def loss(log_temperature: float) -> float:
        sharpness = margins.dtype.type(np.exp(-log_temperature))
        np.multiply(margins, sharpness, out=scaled)
        np.exp(scaled, out=scaled)
        return np.log(scaled.sum(axis=1, dtype=np.float64)).mean() - wanted * sharpness

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities `(N, K)` of logits `(N, K)` at a temperature."""
    shifted = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    return shifted / shifted.sum(axis=1, keepdims=True)


def cross_fitted(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Probabilities `(N, K)` of each half of the images (every other one) at the temperature fitted on the other half.

    So no image is judged by a temperature that it helped to choose.
    """
    probabilities = np.empty_like(logits)
    for half in (0, 1):
        temperature = fit_temperature(logits[1 - half :: 2], targets[1 - half :: 2])
        probabilities[half::2] = softmax(logits[half::2], temperature)
    return probabilities


def reliability(
    probabilities: np.ndarray, targets: np.ndarray, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence against accuracy, in `bins` of equal width: how many images each holds, their mean confidence (the
    probability of the class that is named), and the share of them that are right; 0 where a bin is empty.

    Each is `(bins,)`. Guo et al. 2017, section 2.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == targets
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count, *sums = (np.bincount(places, weights, bins) for weights in (None, confidence, right))
    return count, *(total / np.maximum(count, 1) for total in sums)


def calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The expected calibration error: the mean distance of confidence and accuracy, over `reliability`'s bins."""
    count, confidence, accuracy = reliability(probabilities, targets)
    return float((count * abs(confidence - accuracy)).sum() / count.sum())


def wilson_interval(right: float, count: float) -> tuple[float, float]:
    """Where the accuracy lies that `right` of `count` images speak for: E. B. Wilson's score interval, "Probable
    Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
    """
    share, z = right / count, norm.ppf((1 + LEVEL) / 2)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return float(max(middle - reach, 0.0)), float(min(middle + reach, 1.0))


def accuracy_interval(right: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """The `wilson_interval` of an accuracy; `right` `(N,)` bool says of which images the net names the class. Images of
    one group (a burst, a patient) are right or wrong together, so that those in `groups` `(N,)` count for fewer: for as
    many as `effective_count` says.
    """
    count = effective_count(right, groups)
    return wilson_interval(right.mean() * count, count)


def effective_count(values: np.ndarray, groups: np.ndarray | None = None) -> float:
    """How many independent images would leave the mean of `values` `(N,)` as uncertain as images in `groups` `(N,)` do:
    N by the design effect of J. N. K. Rao and A. J. Scott, "A Simple Method for the Analysis of Clustered Binary Data",
    Biometrics 48 (1992). N where each stands alone; the number of groups where all values are the same, which shows
    nothing of how alike a group's are.
    """
    if groups is None:
        return len(values)
    count, (known, own) = len(values), np.unique(groups, return_inverse=True)
    if len(known) == 1:
        return 1.0
    off = values - values.mean()
    if not off.any():
        return len(known)
    spread = (np.bincount(own, off) ** 2).sum() * len(known) / (len(known) - 1)
    alone = (off**2).sum() * count / (count - 1)
    return count / max(spread / alone, 1.0)


def mcnemar(a_right: np.ndarray, b_right: np.ndarray, groups: np.ndarray | None = None) -> float:
    """The probability of a difference as large as this one, or larger, if two nets were equally good.

    Of the images on which just one of the two is right, each net would have half: McNemar's test (Psychometrika 12,
    1947), with exact binomial probabilities. Of images in groups each group's would be either net's as a whole: the
    same test by exact permutation of the nets within groups.

    Args:
        a_right: `(N,)` bool, whether the first net names the class of each image.
        b_right: the same of the second net, of the same images.
        groups: `(N,)`, which images belong together; None: each stands alone.
    """
    if groups is None:
        only_a, only_b = _discordant(a_right, b_right)
        return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    lead = np.bincount(np.unique(groups, return_inverse=True)[1], a_right.astype(float) - b_right)
    sizes = abs(lead[lead != 0]).astype(int)
    likely = np.ones(1)  # of each sum of the groups' leads, from -total to total, when each has either sign
    for size in sizes:
        likely = (np.pad(likely, (0, 2 * size)) + np.pad(likely, (2 * size, 0))) / 2
    sums = np.arange(len(likely)) - sizes.sum()
    return float(min(likely[abs(sums) >= abs(lead.sum())].sum(), 1.0))


def paired_interval(a_right: np.ndarray, b_right: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Where the difference of two nets' accuracies on the same images lies, first minus second: A. Agresti and Y. Min,
    "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24 (2005). Images
    in groups count as `effective_count` says. Arguments are `mcnemar`'s.
    """
    share = effective_count(a_right.astype(float) - b_right, groups) / len(a_right)
    count = share * len(a_right) + 2  # half an image is added to each of the four: both right, one, the other, neither
    a, b = ((share * only + 0.5) / count for only in _discordant(a_right, b_right))
    reach = norm.ppf((1 + LEVEL) / 2) * np.sqrt((a + b - (a - b) ** 2) / count)
    return float(max(a - b - reach, -1.0)), float(min(a - b + reach, 1.0))


def _discordant(a_right: np.ndarray, b_right: np.ndarray) -> tuple[int, int]:
    """On how many images just the first is right, and just the second."""
    return int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
