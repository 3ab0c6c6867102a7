"""Parallel work on a Dask cluster that outlives the cluster's workers."""

from __future__ import annotations

import joblib


def on_dask(client=None, **options):
    """Send the work of joblib to a Dask cluster, in a way that outlives its workers.

    `joblib.parallel_config(backend="dask")` sends it there, too, but leaves each larger array,
    such as the data or the rows of a fold, on a single worker. If that worker is lost, the array is
    lost and the search ends with an error. Here each task carries its data, so that it can be run
    again elsewhere.

    Parameters
    ----------
    client : distributed.Client, default=None
        The cluster. None for the client that was made last.
    **options
        Further options of `joblib.parallel_config`, such as n_jobs. With scatter=[X], an array
        that is too large to be sent with each task is sent to all workers once. If a worker is
        lost, the others still have their copies.

    Returns
    -------
    joblib.parallel_config
        A context; parallel work inside it runs on the cluster.

    Raises
    ------
    ImportError
        If distributed is not installed.
    ValueError
        If no client is given and there is none.

    Examples
    --------
    >>> from distributed import Client, LocalCluster  # doctest: +SKIP
    >>> with Client(LocalCluster(n_workers=2)) as client, on_dask(client):  # doctest: +SKIP
    ...     search.fit(X)
    """
    if client is None:
        client = _current_client()
    return joblib.parallel_config(backend="dask", client=_TasksCarryData(client), **options)


def _current_client():
    try:
        from distributed import get_client
    except ImportError as error:
        raise ImportError(
            "on_dask needs the package distributed; pip install 'skdyn[distributed]'."
        ) from error
    return get_client()


class _TasksCarryData:
    """A client to which joblib's backend hands arrays, and which leaves them with the tasks."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        return getattr(self._client, name)

    def scatter(self, data, *, broadcast=False, **options):
        # Broadcasts are requested by the caller; a copy for a single worker is joblib's own choice.
        if broadcast:
            return self._client.scatter(data, broadcast=True, **options)
        return _itself(data)


async def _itself(data):
    return data
