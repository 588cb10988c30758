"""Asks the vendor whether it is there, takes the key, and has the same time: costs nothing and starts nothing."""

import email.utils
from dataclasses import dataclass

import httpx2

from dujiang.connections import endpoint_url, open_client
from dujiang.domain import errors
from dujiang.domain.accounts import Account, Key
from dujiang.ports import Clock
from dujiang.providers.jimeng.models import some_product
from dujiang.providers.jimeng.provider import JimengProvider

NO_SUCH_JOB = "0"


@dataclass(frozen=True, slots=True)
class Probe:
    """What one key of an account found: `network` and `refused` say what is wrong.

    `key` is its fingerprint, `skew_s` our clock minus the vendor's.
    """

    account: str
    key: str
    network: str | None = None
    refused: str | None = None
    skew_s: float | None = None

    @property
    def is_good(self) -> bool:
        """The vendor has taken the key."""
        return self.network is None and self.refused is None


async def probe(provider: JimengProvider, account: Account, key: Key, clock: Clock) -> Probe:
    """Poll for a job that does not exist: whatever is said about the job, the key was taken."""
    skew_s = await _skew_s(provider.endpoint, clock)
    try:
        await provider.look(NO_SUCH_JOB, some_product(account), key)
    except (errors.EndpointDown, errors.Unproven) as error:
        return Probe(account.name, key.fingerprint, network=error.message)
    except errors.AccountRefused as error:
        return Probe(account.name, key.fingerprint, refused=error.message, skew_s=skew_s)
    except errors.ProviderError:
        pass
    return Probe(account.name, key.fingerprint, skew_s=skew_s)


async def _skew_s(endpoint: str, clock: Clock) -> float | None:
    url = endpoint_url(endpoint)
    tls = httpx2.create_ssl_context() if url.scheme == "https" else False
    async with open_client(url, keep_alive=0, tls=tls) as client:
        try:
            reply = await client.head(url, timeout=10)
            return clock.now() - email.utils.parsedate_to_datetime(reply.headers["Date"]).timestamp()
        except (httpx2.HTTPError, KeyError, ValueError):
            return None
