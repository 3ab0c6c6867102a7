"""
Fuzz test of DyNeMoEstimator: fits with random settings to random data.

The number of a fit determines its settings and data. Each fit runs in a separate process with a
time limit. It must end with finite attributes, mixing coefficients and score, or with a ValueError
or FitDivergedError that has a message. Any other outcome (another exception, numbers that are not
finite, a crash, a timeout) is listed with its settings; `--only N` repeats number N with its
traceback. RuntimeWarnings, for example from overflow, are counted as well.
"""

import argparse
import collections
import json
import multiprocessing
import os
import re
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from processes import ONE_THREAD

from skdyn import DyNeMoEstimator
from skdyn.simulation import MixedSineMVN


def draw_settings(number):
    """Parameters of the estimator and of the data."""
    rng = np.random.RandomState(number)

    def one_of(*values):
        return values[rng.randint(len(values))]

    init_method = one_of("moments", "hmm", "auto", "random_subset", "random")
    parameters = {
        "n_modes": int(rng.randint(2, 17)),
        "sequence_length": int(rng.randint(10, 201)),
        "learning_rate": float(10 ** rng.uniform(-4, -1)),
        "n_epochs": int(rng.randint(2, 7)),
        "init_method": init_method,
        "learn_means": one_of(True, False),
        "diagonal_covariances": one_of(True, False, False, False),
        "inference_rnn": one_of("lstm", "gru"),
        "model_rnn": one_of("lstm", "gru"),
        "gradient_clip": one_of(None, 0.1, 1.0),
        "loss_calc": one_of("mean", "sum"),
        "lr_decay": one_of("linear", 0.0, 0.1, 1.0),
        "batch_size": one_of("auto", int(rng.randint(1, 65))),
        "random_state": number,
    }
    if init_method == "random_subset":
        parameters |= {"n_init": 2, "n_init_epochs": 1}
    data = {
        "n_rows": int(rng.randint(200, 3001)),
        "n_channels": int(rng.randint(1, 25)),
        "amplitude": one_of("of each channel", "of all"),
        "offset": one_of(True, False, False),
        "copies": one_of(None, None, None, "exact", "nearly"),
        "n_sessions": one_of(1, 1, int(rng.randint(2, 13))),
    }
    return parameters, data


def draw_data(number, n_rows, n_channels, amplitude, offset, copies, n_sessions):
    """One recording, or a list of sessions that may be very short."""
    rng = np.random.RandomState([number, 1])
    X = MixedSineMVN(
        n_samples=n_rows,
        n_modes=3,
        n_channels=n_channels,
        relative_activation=rng.uniform(0, 0.5, 3),
        amplitudes=rng.uniform(1, 5, 3),
        frequencies=rng.uniform(0.5, 4, 3),
        sampling_frequency=250,
        means="random",
        random_state=rng,
    ).time_series
    X /= X.std(axis=0)
    if offset:
        X += rng.normal(0, 3, n_channels)
    if copies and n_channels > 1:
        first, second = rng.choice(n_channels, 2, replace=False)
        X[:, first] = X[:, second]
        if copies == "nearly":
            X[:, first] += 1e-6 * rng.standard_normal(n_rows)
    X *= 10 ** rng.uniform(-6, 6, n_channels if amplitude == "of each channel" else 1)
    if n_sessions == 1:
        return X
    return np.split(X, np.sort(rng.choice(np.arange(1, n_rows), n_sessions - 1, replace=False)))


def not_finite(model, X):
    """Names of attributes and results that are not finite."""
    many = isinstance(X, list)
    alpha, score = model.transform(X), model.score(X)
    results = {
        "transform": np.concatenate(alpha) if many else alpha,
        "score": score,
        "means_": model.means_,
        "covariances_": model.covariances_,
        "alpha_temperature_": model.alpha_temperature_,
        "channel_scale_": model.channel_scale_,
        **{f"history_[{name!r}]": values for name, values in model.history_.items()},
        **{
            f"network_.{name}": value.numpy() for name, value in model.network_.state_dict().items()
        },
    }
    return [name for name, values in results.items() if not np.isfinite(values).all()]


def attempt(number):
    """Run one fit and return its outcome."""
    parameters, data = draw_settings(number)
    model = DyNeMoEstimator(**parameters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            X = draw_data(number, **data)
            bad = not_finite(model.fit(X), X)
            answer = {"outcome": "not finite" if bad else "finite", "message": ", ".join(bad)}
        except Exception as error:  # every kind is an outcome
            answer = {"outcome": type(error).__name__, "message": str(error)}
            answer["traceback"] = traceback.format_exc()
    runtime = {str(one.message) for one in caught if issubclass(one.category, RuntimeWarning)}
    return answer | {"warnings": sorted(runtime)}


def send_attempt(number, connection):
    connection.send(attempt(number))


def watch(context, number, limit):
    """Run one attempt in a process, for so many seconds at most."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_attempt, args=(number, sender), daemon=True)
    start = time.perf_counter()
    process.start()
    sender.close()
    try:
        if receiver.poll(limit):
            answer = receiver.recv()
            process.join(10)  # time for its cleanup
        else:
            answer = {"outcome": "hang", "message": f"not done after {limit} s"}
    except EOFError:
        process.join()
        answer = {"outcome": "crash", "message": f"exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()
    return {"number": number, "seconds": time.perf_counter() - start, "warnings": [], **answer}


def is_well(answer):
    rejected = answer["outcome"] in ("ValueError", "FitDivergedError") and answer["message"].strip()
    return answer["outcome"] == "finite" or bool(rejected)


def describe(answer):
    """One line of JSON: the outcome, and all that is needed to repeat it."""
    parameters, data = draw_settings(answer["number"])
    kept = {name: answer[name] for name in ("number", "outcome", "message", "warnings")}
    return json.dumps(kept | {"parameters": parameters, "data": data})


def report(answers):
    print(f"{len(answers)} fits, longest {max(one['seconds'] for one in answers):.0f} s")
    for outcome, count in collections.Counter(one["outcome"] for one in answers).most_common():
        print(f"  {outcome}: {count}")
    errors = [one for one in answers if is_well(one) and one["outcome"] != "finite"]
    # Numbers differ from message to message.
    kinds = collections.Counter(re.sub(r"\d[\d.e+-]*", "#", one["message"]) for one in errors)
    for message, count in kinds.most_common():
        print(f"  rejected {count} times: {message}")
    warned = [one for one in answers if one["warnings"]]
    print(f"RuntimeWarnings in {len(warned)} fits: {[one['number'] for one in warned]}")
    failed = [one for one in answers if not is_well(one)]
    print(f"{len(failed)} did not end well")
    for one in failed:
        print(describe(one))
    return bool(failed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--n-fits", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first fit")
    parser.add_argument("--only", type=int, help="one number, with its settings and its traceback")
    parser.add_argument("--limit", type=float, default=120, help="seconds that a fit may take")
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    arguments = parser.parse_args()
    os.environ.update(ONE_THREAD)
    # Forked from a process that has imported everything and holds no threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["skdyn", "skdyn.simulation"])
    if arguments.only is not None:
        answer = watch(context, arguments.only, arguments.limit)
        print(describe(answer), answer.get("traceback", ""), sep="\n")
        raise SystemExit(not is_well(answer))
    numbers = range(arguments.first, arguments.first + arguments.n_fits)
    with ThreadPoolExecutor(arguments.jobs) as executor:
        answers = []
        for one in executor.map(lambda number: watch(context, number, arguments.limit), numbers):
            answers.append(one)
            if not is_well(one):
                print(f"failed: {describe(one)}", flush=True)
    raise SystemExit(report(answers))


if __name__ == "__main__":
    main()
