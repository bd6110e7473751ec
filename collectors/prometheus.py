"""Prometheus, asked for dcgm-exporter's series: for clusters, or nodes, without the agent."""

from __future__ import annotations

from typing import Any

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException

from collectors.dcgm_columns import DcgmTable, TableBuilder
from collectors.dcgm_series import METRICS
from collectors.errors import SourceError
from collectors.garbage import collector_paused

TIMEOUT_SECONDS = 10

KEY_LABELS = "Hostname, hostname, UUID, GPU_I_ID"
"""Labels by which a series finds its GPU: the others are read once a poll. With all of them an answer
is three times as long, and reading it takes most of a poll's time."""

MOST_ROUNDS = 3
"""Further metrics asked for names or times, where no one metric is on all GPUs."""


class DcgmSource:
    """Asks one Prometheus (or what speaks its API) for dcgm-exporter's series.

    Raises SourceError naming the address when it does not answer within the time-out.
    """

    def __init__(self, url: str, *, timeout_seconds: int = TIMEOUT_SECONDS) -> None:
        self._url = url.rstrip("/")
        # The caller polls again soon enough: no retries that would hide how late an answer is.
        self._client = PrometheusConnect(
            url=self._url, timeout=timeout_seconds, retry=requests.adapters.Retry(total=0)
        )

    def read(self) -> DcgmTable:
        """Return the GPUs of every host that dcgm-exporter is scraped on. All of it, or an error.

        An instant vector carries the time of the question, and Prometheus answers with samples up
        to 5 minutes old: those of one metric are asked for their own times besides.
        """
        with collector_paused():
            return self._read()

    def check(self) -> None:
        """Ask something small, whatever it finds. Raises SourceError."""
        self.query("up")

    def query(self, text: str) -> list[dict[str, Any]]:
        """Return the instant vector of a query."""
        try:
            answer = self._client.custom_query(text)
        except (
            requests.RequestException,
            PrometheusApiClientException,
            ValueError,
            KeyError,
            TypeError,
        ) as error:
            raise SourceError(
                f"Prometheus at {self._url} does not answer the query {text}: {error}; "
                "check PITWALL_PROMETHEUS_URL and that it is up"
            ) from error
        if not isinstance(answer, list):
            raise SourceError(f"Prometheus at {self._url} answers {text} with no vector")
        return answer

    def _read(self) -> DcgmTable:
        builder = TableBuilder()
        for metric in METRICS:
            # The first that is there names the GPUs by all of its labels.
            named = not builder.is_empty
            builder.add(metric, self.query(_shorten(metric) if named else metric), named=named)
        for _ in range(MOST_ROUNDS):
            unnamed = builder.next_name()
            if unnamed is None:
                break
            builder.add_names(self.query(unnamed))
        for _ in range(MOST_ROUNDS):
            untimed = builder.next_clock()
            if untimed is None:
                break
            builder.add_times(self.query(_shorten(f"timestamp({untimed})")))
        return builder.build()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _shorten(query: str) -> str:
    return f"max by ({KEY_LABELS}) ({query})"
