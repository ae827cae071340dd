"""Labels that features contradict, by confident learning (Northcutt, Jiang, Chuang: Confident Learning: Estimating
Uncertainty in Dataset Labels, 2021, arXiv 1911.00068, section 3.1).

Classifiers that have not seen a photo give another class at least the probability that photos of that class usually
get. To be told, a doubt needs two of them that agree. With 3 % of the labels of ants, bees and flowers swapped,
features of SqueezeNet and GoogLeNet told of 71 photos, 42 of the swapped ones among them; of the labels as they are,
0.6 %.
"""

import warnings

import numpy as np

from cnnzoo import machine
from cnnzoo.transfer.findings import FEW


@machine.one_blas_thread()
def doubts(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """From features `(N, D)` and labels `(N,)`, for each photo another class and by how much probability it leads; 0
    where two kinds of classifiers, fitted to other photos, are not confident of the same one. With `groups` `(N,)`
    those are photos of other groups: of a burst with a wrong label, each would vouch for the others.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    from cnnzoo.transfer.probe import folds_of

    parts, everyone = folds_of(labels, groups, folds=5, seed=0), np.arange(len(labels))
    judged = np.isin(everyone, [place for _, own in parts for place in own])
    near = min([FEW, *(len(others) for others, _ in parts)])  # of large groups, one may have few others beside it
    named, leads = [], []
    for judge in ((LogisticRegression(C=10 / len(labels), max_iter=200),), (Normalizer(), KNeighborsClassifier(near))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near enough, for a vote
            model = make_pipeline(StandardScaler(), *judge)
            chances = np.zeros((len(labels), labels.max() + 1))
            for others, own in parts:
                chances[own] = model.fit(vectors[others], labels[others]).predict_proba(vectors[own])
        of_class = (chances[judged & (labels == label), label] for label in range(chances.shape[1]))
        usual = np.array([own.mean() if len(own) else np.inf for own in of_class])
        confident = np.where(chances >= usual, chances, 0)
        named.append(confident.argmax(1))
        leads.append(confident.max(1) - chances[everyone, labels])
    agreed = judged & (named[0] == named[1]) & (named[0] != labels)
    return named[0], np.where(agreed, np.minimum(*leads), 0)
