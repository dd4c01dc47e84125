"""How obstore is told where a store is and who we are: by the environment and the usual files, and nothing else.

Its clients hang in a forked child, so each process makes its own when it first needs one.
"""

import os
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import RefusedByStoreError

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, ClientConfig, ObjectStore, RetryConfig

HELP = "docs/stores.md says how a store is told who we are"


@lru_cache(maxsize=8)
def client_of(url: str, retry_seconds: float) -> "ObjectStore":
    """Make obstore's client of a store, or give the one that this process has.

    Args:
        url: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``.
        retry_seconds: For how long a request that fails is tried again.

    Raises:
        StoreError: If the environment does not say enough.
    """
    from obstore.store import from_url

    config: Any = _aws_files() if url.startswith("s3:") else {}
    plain = any(
        os.environ.get(name, "").startswith("http://")
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AZURE_STORAGE_ENDPOINT", "AZURITE_BLOB_STORAGE_URL")
    )
    options: ClientConfig = {
        "timeout": timedelta(hours=6),
        "read_timeout": timedelta(seconds=max(5.0, min(60.0, retry_seconds))),
    }
    if plain:
        options["allow_http"] = True
    backoff: BackoffConfig = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5)}
    retries: RetryConfig = {
        "max_retries": 10_000,
        "retry_timeout": timedelta(seconds=retry_seconds),
        "backoff": backoff,
    }
    try:
        return from_url(url, config=config or None, client_options=options, retry_config=retries)
    except Exception:
        raise RefusedByStoreError(
            f"{url}: the environment says too little, or something wrong, of this store; {HELP}"
        ) from None


def _aws_files() -> dict[str, str]:
    """Read the profile of ``~/.aws/credentials`` and ``config``, which obstore does not, where no key is given else."""
    import configparser

    if os.environ.keys() & {"AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"}:
        return {}
    profile = os.environ.get("AWS_PROFILE", "default")
    said: dict[str, str] = {}
    for variable, name, section in (
        ("AWS_CONFIG_FILE", "config", profile if profile == "default" else f"profile {profile}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile),
    ):
        parser = configparser.RawConfigParser()
        with suppress(RuntimeError):  # who has no home has no files in it
            parser.read(Path(os.environ.get(variable) or f"~/.aws/{name}").expanduser())
        said |= dict(parser[section]) if parser.has_section(section) else {}
    names = {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
        "region": "region",
    }
    return {name: said[key] for key, name in names.items() if key in said}
