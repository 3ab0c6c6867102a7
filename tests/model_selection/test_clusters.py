"""Data sent to a cluster: arrays with the tasks, or broadcast to all workers on request."""

import asyncio

from skdyn.model_selection.clusters import _TasksCarryData


class Client:
    name = "client"

    def scatter(self, data, **options):
        return data, options


def test_client_sends_to_all_workers_where_it_is_asked():
    client = _TasksCarryData(Client())
    assert client.scatter([1], broadcast=True, hash=False) == (
        [1],
        {"broadcast": True, "hash": False},
    )
    assert asyncio.run(client.scatter([1])) == [1]
    assert client.name == "client"
