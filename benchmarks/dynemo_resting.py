"""
DyNeMoEstimator on held-out resting-state fMRI, compared with a hidden Markov model.

Data: seven subjects of the Human Connectome Project, standardised, then reduced to whitened
principal components of the training rows.

*held-out*: fitted to the first half of each subject, or to four subjects, and compared on the rest:
the evidence lower bound per row of two seeds, the exact log-likelihood of hmmlearn's GaussianHMM
with as many states (the best of several starts by training likelihood) and of one Gaussian;
differences over sessions with their standard errors; and the correlation of the matched mixing
coefficients of the two seeds.

*chain*: a chain of states drawn from a hidden Markov model that was fitted to all subjects, and the
share of its rows that a fit of the chain assigns to the right mode (Dice), compared with
expectation maximisation and with the posterior probabilities under the true model.
"""

import argparse
import json
import warnings

import numpy as np
from processes import ask_all, markdown, measured
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from skdyn import DyNeMoEstimator, match_modes
from skdyn.core.hmm import fit_hmm, posteriors
from skdyn.datasets import load_hcp_rest
from skdyn.metrics import alpha_correlation, dice_coefficient

N_STARTS = 5


def split(by, n_components):
    """Sessions to fit and sessions to compare on."""
    recordings = [StandardScaler().fit_transform(one) for one in load_hcp_rest().data]
    if by == "halves":
        train = [one[: len(one) // 2] for one in recordings]
        test = [one[len(one) // 2 :] for one in recordings]
    else:
        train, test = recordings[:4], recordings[4:]
    pca = PCA(n_components, whiten=True, random_state=0).fit(np.concatenate(train))
    return [pca.transform(one) for one in train], [pca.transform(one) for one in test]


def of_hmm(train, test, n_states):
    """Log-likelihood per row of each session of `test`, by hmmlearn."""
    from hmmlearn.hmm import GaussianHMM

    X, lengths = np.concatenate(train), [len(one) for one in train]
    models = [
        GaussianHMM(n_states, "full", n_iter=100, random_state=seed).fit(X, lengths)
        for seed in range(N_STARTS)
    ]
    best = max(models, key=lambda model: model.score(X, lengths))
    return [best.score(one) / len(one) for one in test]


def of_one_gaussian(train, test):
    """Log-likelihood per row of each session of `test` under one Gaussian."""
    X = np.concatenate(train)
    covariance = np.cov(X, rowvar=False, bias=True)
    _, log_det = np.linalg.slogdet(2 * np.pi * covariance)
    inverse = np.linalg.inv(covariance)
    centred = [one - X.mean(axis=0) for one in test]
    return [
        -0.5 * (log_det + np.einsum("ti,ij,tj->t", one, inverse, one).mean()) for one in centred
    ]


def compare(by, n_modes, n_components, parameters):
    """Compare two seeds and the baselines on held-out sessions."""
    train, test = split(by, n_components)
    models, alphas, bounds, cpu = [], [], [], []
    for seed in (0, 1):
        model = DyNeMoEstimator(n_modes=n_modes, random_state=seed, **parameters)
        _, cost = measured(lambda model=model: model.fit(train))
        models.append(model)
        alphas.append(np.concatenate(model.transform(test)))
        bounds.append([float(model.score(one)) for one in test])
        cpu.append(cost["cpu_s"])
    rivals = {"hmm": of_hmm(train, test, n_modes), "static": of_one_gaussian(train, test)}
    return {
        "by": by,
        "bounds": bounds,
        "agreement": np.nan_to_num(
            alpha_correlation(alphas[0], match_modes(alphas[0], alphas[1])[1])
        ).tolist(),
        "cpu_s": cpu,
        **rivals,
    }


def draw_chain(hmm, n_rows, random_state):
    """Rows and states of a hidden Markov model."""
    rng = np.random.RandomState(random_state)
    n_states, n_channels = hmm.means.shape
    states = [rng.choice(n_states, p=hmm.start / hmm.start.sum())]
    for _ in range(n_rows - 1):
        states.append(rng.choice(n_states, p=hmm.transition[states[-1]]))
    roots = np.linalg.cholesky(hmm.covariances)[states]
    noise = rng.standard_normal((n_rows, n_channels, 1))
    return hmm.means[states] + (roots @ noise)[..., 0], np.eye(n_states)[states]


def chain(draw, n_modes, n_components, parameters):
    """One chain, drawn from what expectation maximisation finds in all subjects."""
    train, test = split("halves", n_components)
    random_state = np.random.RandomState
    sessions = [np.concatenate(halves) for halves in zip(train, test, strict=True)]
    hmm = fit_hmm(sessions, n_modes, random_state=random_state(0), n_iter=100).hmm
    X, truth = draw_chain(hmm, 25600, draw)
    model = DyNeMoEstimator(n_modes=n_modes, random_state=0, **parameters)
    _, cost = measured(lambda: model.fit(X))
    em = fit_hmm([X], n_modes, random_state=random_state(draw), n_init=8, n_iter=100)

    def dice(alpha):
        return float(dice_coefficient(*match_modes(truth, alpha)))

    return {
        "draw": draw,
        "dice": dice(model.transform(X)),
        "em": dice(em.posteriors[0]),
        "truth": dice(posteriors([X], hmm)[0]),
        "cpu_s": cost["cpu_s"],
        "problem": model.problem_,
    }


def versus(ours, theirs):
    """Mean difference over sessions and its standard error."""
    difference = np.subtract(ours, theirs)
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return f"{difference.mean():.3f} ± {error:.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["halves", "subjects", "chain"])
    parser.add_argument("--draws", type=int, nargs="+", default=range(1, 6), help="of the chain")
    parser.add_argument("--modes", type=int, default=8)
    parser.add_argument("--components", type=int, default=25)
    parser.add_argument("--parameters", type=json.loads, default={}, help="JSON, for the estimator")
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        warnings.simplefilter("ignore")
        of = chain if "draw" in arguments.one else compare
        print(json.dumps(of(**arguments.one)))
        return
    common = {
        "n_modes": arguments.modes,
        "n_components": arguments.components,
        "parameters": arguments.parameters,
    }
    requests = [{"by": part} | common for part in arguments.parts if part != "chain"]
    if "chain" in arguments.parts:
        requests += [{"draw": draw} | common for draw in arguments.draws]
    answers = list(ask_all(__file__, requests, arguments.jobs))
    rows = [
        [
            one["by"],
            seed,
            f"{np.mean(bound):.3f}",
            versus(bound, one["hmm"]),
            versus(bound, one["static"]),
            f"{np.mean(one['agreement']):.3f} ({min(one['agreement']):.3f})",
            f"{cpu:.0f}",
        ]
        for one in answers
        if "by" in one
        for seed, (bound, cpu) in enumerate(zip(one["bounds"], one["cpu_s"], strict=True))
    ]
    if rows:
        heads = (
            "held out",
            "seed",
            "bound",
            "above HMM",
            "above one Gaussian",
            "seeds agree",
            "CPU s",
        )
        markdown(heads, rows)
    rows = [
        [
            one["draw"],
            *(f"{one[name]:.3f}" for name in ("dice", "em", "truth")),
            bool(one["problem"]),
        ]
        for one in answers
        if "draw" in one
    ]
    if rows:
        print()
        markdown(["draw", "Dice", "of EM", "of the true model", "warned"], sorted(rows))


if __name__ == "__main__":
    main()
