"""Signing in: by password, by a one-time link, and what a stranger sees."""

from __future__ import annotations

import socket
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from runs.actions import make_sign_in_link
from runs.management.commands.demo import bind, names_of
from runs.models import SignInLink

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"


def signed_in(client: Client) -> bool:
    return client.get("/").status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/runs/new", "/approvals/", "/approvals/1/", "/costs/", "/tickets/", "/no-such-page"]
)
def test_a_stranger_is_sent_to_sign_in_and_back(client: Client, path: str) -> None:
    response = client.get(path)
    if path == "/no-such-page":
        assert response.status_code == 404
        assert "Sign in" in response.content.decode()
        return
    assert response.status_code == 302
    assert response["Location"] == f"/sign-in/?next={path}"


def test_name_and_password_sign_in_and_lead_back(client: Client, operator: User) -> None:
    response = client.post(
        "/sign-in/", {"username": "olga", "password": PASSWORD, "next": "/costs/?period=7"}
    )
    assert response.status_code == 302
    assert response["Location"] == "/costs/?period=7"
    assert signed_in(client)


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", ""])
def test_signing_in_never_leads_to_another_site(client: Client, operator: User, target: str) -> None:
    response = client.post("/sign-in/", {"username": "olga", "password": PASSWORD, "next": target})
    assert response["Location"] == "/"


def test_a_wrong_password_says_so_and_keeps_the_name(client: Client, operator: User) -> None:
    response = client.post("/sign-in/", {"username": "olga", "password": "wrong"})
    assert response.status_code == 422
    page = response.content.decode()
    assert "Name and password do not fit together" in page
    assert 'value="olga"' in page
    assert "wrong" not in page
    assert not signed_in(client)


def test_who_guesses_has_to_wait_and_locks_nobody_else_out(client: Client, operator: User) -> None:
    def attempt(password: str, address: str = "203.0.113.7") -> Any:
        return client.post("/sign-in/", {"username": "olga", "password": password}, REMOTE_ADDR=address)

    assert [attempt(f"guess {n}").status_code for n in range(4)] == [422] * 4
    assert attempt("guess 5").status_code == 429
    right = attempt(PASSWORD)
    assert right.status_code == 429 and "Too many wrong passwords" in right.text
    assert 'value="olga"' in right.text and PASSWORD not in right.text
    assert attempt(PASSWORD, "203.0.113.8").status_code == 302
    client.logout()

    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert attempt(PASSWORD).status_code == 302


def test_a_link_signs_in_once(client: Client, operator: User) -> None:
    token = make_sign_in_link(operator)
    assert client.get(f"/sign-in/{token}/")["Location"] == "/"
    assert signed_in(client)

    second = Client().get(f"/sign-in/{token}/")
    assert second.status_code == 410
    assert "works once" in second.content.decode()


def test_the_link_leads_to_where_the_installation_says_it_is(operator: User, settings: Settings) -> None:
    there = "https://agents.example.com"
    for url, base in (("", "http://127.0.0.1:8000/"), (there, f"{there}/")):
        settings.AGENTOPS_URL = url
        out = StringIO()
        call_command("signinlink", "olga", stdout=out)
        assert out.getvalue().startswith(base)


def test_looking_at_a_link_with_head_does_not_use_it_up(client: Client, operator: User) -> None:
    token = make_sign_in_link(operator)
    assert client.head(f"/sign-in/{token}/").status_code == 405
    assert client.get(f"/sign-in/{token}/").status_code == 302


def test_an_old_link_and_an_invented_one_say_what_to_do(client: Client, operator: User) -> None:
    token = make_sign_in_link(operator)
    SignInLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    for tried in (token, "invented"):
        response = client.get(f"/sign-in/{tried}/")
        assert response.status_code == 410
        assert "Print a new one" in response.content.decode()


def test_a_disabled_user_cannot_use_a_link(client: Client, operator: User) -> None:
    token = make_sign_in_link(operator)
    User.objects.update(is_active=False)
    assert client.get(f"/sign-in/{token}/").status_code == 410


def test_signing_out_takes_a_form_not_a_link(client: Client, operator: User) -> None:
    client.force_login(operator)
    assert client.get("/sign-out/").status_code == 405
    assert signed_in(client)
    assert client.post("/sign-out/")["Location"] == "/sign-in/"
    assert not signed_in(client)


def test_a_fragment_asked_for_without_a_session_moves_the_whole_page(client: Client) -> None:
    response = client.get("/", headers={"HX-Request": "true"})
    assert response["HX-Redirect"] == "/sign-in/"
    assert response.status_code == 403 and "signed out" in response.text


# ------------------------------------------------------- the printed link


def listening(host: str) -> socket.socket:
    """A listener as the demo makes it, on any free port."""
    try:
        return bind(host, 0)
    except CommandError as error:
        if ":" in host:
            pytest.skip(f"no IPv6 here: {error}")
        raise


@pytest.mark.parametrize(
    ("host", "name"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("::1", "[::1]"),
     ("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("0", "127.0.0.1")],
)  # fmt: skip
def test_the_demo_prints_an_address_that_opens_here(
    client: Client, settings: Any, host: str, name: str
) -> None:
    with listening(host) as listener:
        names = names_of(host, listener)
        port = listener.getsockname()[1]
        assert names[0] == name
        with socket.create_connection((name.strip("[]"), port), timeout=10):
            pass
    settings.ALLOWED_HOSTS = names
    assert client.get("/healthz", headers={"Host": f"{name}:{port}"}).status_code == 200


def test_the_demo_on_every_address_answers_to_this_machine_and_to_no_other_name(
    client: Client, settings: Any
) -> None:
    with listening("0.0.0.0") as listener:
        names = names_of("0.0.0.0", listener)
    settings.ALLOWED_HOSTS = names
    machine = socket.gethostname()
    assert machine in names
    assert "*" not in names
    assert client.get("/healthz", headers={"Host": machine}).status_code == 200
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("port", ["65536", "-1", "x", "99999999999999999999", "²", ""])
def test_a_port_that_is_none_is_said_in_a_sentence(port: str) -> None:
    with pytest.raises(CommandError, match="is no port: give a number from 1 to 65535, or 0"):
        call_command("demo", f"--port={port}")


def test_an_address_that_is_not_of_this_machine_is_said_in_a_sentence() -> None:
    for host in ("192.0.2.1", "no such host", "2001:db8::1"):
        with pytest.raises(CommandError, match="Choose an") as refused:
            bind(host, 8000)
        assert host in str(refused.value)


# ----------------------------------------------------------------- health


def test_health_needs_no_session(client: Client) -> None:
    response = client.get("/healthz")
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}


def test_a_browser_that_fetches_ahead_does_not_use_up_the_link(client: Client, operator: User) -> None:
    address = f"/sign-in/{make_sign_in_link(operator)}/"
    assert client.get(address, headers={"Sec-Purpose": "prefetch;prerender"}).status_code == 204
    assert client.get(address).status_code == 302


def test_a_vote_sent_without_a_session_comes_back_to_its_card(client: Client, operator: User) -> None:
    asked = client.post("/approvals/7/decide/")
    assert asked.status_code == 403 and "nothing was changed" in asked.text
    assert 'name="next" value="/approvals/7/decide/"' in asked.text
    client.force_login(operator)
    for sent_to, page in {
        "/approvals/7/decide/": "/approvals/7/",
        "/approvals/7/revoke/": "/approvals/7/",
        "/approvals/7/edit/": "/approvals/7/edit/",
        "/policy/3/enable": "/policy/3/",
        "/relapses/3/taken": "/",
        "/budgets/3/remove": "/budgets/3/",
    }.items():
        assert client.get("/sign-in/", {"next": sent_to})["Location"] == page


@pytest.mark.parametrize("length", [100, 2_001, 20_000])
def test_an_address_to_return_to_may_have_any_length(length: int, client: Client, operator: User) -> None:
    answer = client.get("/", {"q": "a" * length})
    assert answer.status_code == 302 and answer["Location"].startswith("/sign-in/")
    client.force_login(operator)
    assert client.get("/sign-in/", {"next": "/?q=" + "a" * length}).status_code == 302
