"""Signing in: by password, by a one-time link, and what a stranger sees."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from runs.actions import make_sign_in_link
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


def test_a_link_signs_in_once(client: Client, operator: User) -> None:
    token = make_sign_in_link(operator)
    assert client.get(f"/sign-in/{token}/")["Location"] == "/"
    assert signed_in(client)

    second = Client().get(f"/sign-in/{token}/")
    assert second.status_code == 410
    assert "works once" in second.content.decode()


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
    response = client.get("/", headers={"HX-Request": "true"}, follow=True)
    assert response["HX-Redirect"] == "/sign-in/"
    assert response.status_code == 204


def test_health_needs_no_session(client: Client) -> None:
    response = client.get("/healthz")
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}
