"""Each attack through the service, over real sockets: what it is answered, and that the secret is asked by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.app.support import Lab, kind, lab, run
from tests.app.urls.attacks import ATTACKS, BODIES, NAMES, Attack
from tests.app.urls.host import TLS, Host, host_in_thread
from tests.app.urls.network import Network, installed

SECONDS = 5  # BLIP_IMAGE_URL_TIMEOUT_SECONDS


@dataclass(slots=True)
class Campaign:
    answers: dict[str, httpx.Response]
    secret: Host
    network: Network


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    async def attack(one: Attack, to: Lab) -> tuple[str, httpx.Response]:
        return one.name, await to.client.post("/caption", json={"image": one.url})

    async def test() -> dict[str, httpx.Response]:
        options: dict[str, Any] = {
            "image_urls": "public",
            "image_url_timeout_seconds": SECONDS,
            "max_body_bytes": 1_000_000,
        }
        async with lab(**options) as to:
            together = await asyncio.gather(*(attack(one, to) for one in ATTACKS if one not in BODIES))
            return dict([*together, *[await attack(one, to) for one in BODIES]])

    with (
        pytest.MonkeyPatch.context() as patch,
        host_in_thread() as plain,
        host_in_thread(tls=True) as tls,
        host_in_thread() as secret,
        installed(Network(plain.port, tls.port, secret.port)) as network,
    ):
        patch.setenv("SSL_CERT_FILE", str(TLS / "ca.pem"))
        yield Campaign(run(test), secret, network)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_refused(campaign: Campaign, attack: Attack) -> None:
    response = campaign.answers[attack.name]
    told = (200, "") if response.status_code == 200 else kind(response)
    assert told in attack.answers, response.text


def test_the_secret_was_asked_by_nobody(campaign: Campaign) -> None:
    assert campaign.secret.num_connections == 0
    assert len(campaign.network.dialled) > 10


def test_no_answer_tells_what_was_refused(campaign: Campaign) -> None:
    details = {campaign.answers[one.name].json()["detail"] for one in NAMES if "label" not in one.name}
    assert details == {"image: The image's URL is not allowed, or leads nowhere."}
    for one in ATTACKS:
        text = campaign.answers[one.name].json().get("detail", "")
        assert not any(word in text for word in ("127.", "10.", "169.", "::", "inner", "port")), text
