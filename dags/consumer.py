"""An example of a consumer: it runs when a release was published, verifies every byte of it, and reads it."""

import os
from typing import Any

from airflow.sdk import DAG
from night.settings import read_surfaces
from night.step import asset_of, call

RELEASE = "{{ version_of(triggering_asset_events) }}"  # started by hand, it takes what LATEST names


def version_of(events: Any) -> str:
    """Take the version from the newest event of those that started the run; empty if none did."""
    found = sorted((event for of_asset in events.values() for event in of_asset), key=lambda event: event.timestamp)
    return found[-1].extra["version"] if found else ""


for surface in read_surfaces(os.environ, os.listdir):
    with DAG(
        f"nightrec_{surface.name}_consumer",
        description=f"What is done with each release of {surface.name}",
        schedule=[asset_of(surface.name)],
        catchup=False,
        max_active_runs=1,
        user_defined_macros={"version_of": version_of},
        tags=["nightrec"],
    ):
        where = ["--config", surface.config, "--json"]
        verify = call("verify", ["releases", "verify", RELEASE, *where], surface)
        show = call("show", ["releases", "show", RELEASE, *where], surface)

        verify >> show
