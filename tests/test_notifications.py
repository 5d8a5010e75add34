"""People are told: what is written with the event is sent, signed, repeated, and never sent inward."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from agentops import environment
from runs import actions, outgoing
from runs.actions import ActionError, Result, WantedChannel
from runs.engine.sender import Sender, deliver
from runs.models import (
    Approval,
    NoticeKind,
    NotificationChannel,
    NotificationDelivery,
    Run,
)
from runs.outgoing import BadAddress, Private, Unreachable
from tests.conftest import Installation, eventually, wait_for_line
from tests.factories import a_lease, a_run, a_waiting_call
from tests.test_approvals import decide, start

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK = Private.parse(["127.0.0.1"])
EVERYTHING = [value for value in NoticeKind.values if value != NoticeKind.TEST]

Request = tuple[dict[str, str], bytes]
Answer = Callable[[BaseHTTPRequestHandler], None]


def with_status(status: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", "0")
        handler.end_headers()

    return answer


class Receiver:
    """A real HTTP server: answers as told, 200 in the end, and keeps what it was sent."""

    def __init__(self) -> None:
        self.got: list[Request] = []
        self.answers: list[Answer] = []
        self.release = threading.Event()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/hook?team=1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        with self._lock:
            self.got.append(({name.lower(): value for name, value in handler.headers.items()}, body))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            answer = self.answers.pop(0) if self.answers else with_status(200)
        try:
            answer(handler)
        except OSError:
            pass  # the sender had enough
        finally:
            with self._lock:
                self.at_once -= 1

    def hang(self, handler: BaseHTTPRequestHandler) -> None:
        """Begin an answer and never end its headers."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.release.wait(0.05):
            handler.wfile.write(b"x: y\r\n")

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver(settings: Settings) -> Iterator[Receiver]:
    settings.AGENTOPS_WEBHOOK_PRIVATE = LOOPBACK
    settings.AGENTOPS_URL = "https://agents.example.com"
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def manager(db: None) -> User:
    """May manage notifications and nothing else."""
    user = User.objects.create_user("nora", password="correct horse battery")
    user.user_permissions.add(Permission.objects.get(codename="notify"))
    return user


def a_channel(user: User, url: str = "", **fields: Any) -> tuple[NotificationChannel, str]:
    wanted = {"name": "on-call", "kind": "json", "url": url, "notices": EVERYTHING} | fields
    return actions.save_channel(WantedChannel(**wanted), user=user)


def send_due() -> int:
    """Send what is due now as a worker would, one after the other; how many were sent."""
    sent = 0
    while due := actions.due_deliveries(timezone.now(), 10):
        sent += sum(deliver(pk) for pk in due)
    return sent


def is_due(**which: Any) -> None:
    """The time until the next attempt is over."""
    NotificationDelivery.objects.filter(**which).update(next_at=timezone.now())


def snippet() -> Callable[..., bool]:
    """The function that the manual gives to receivers."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "docs/notifications.md").read_text(), re.S)
    assert found
    names: dict[str, Any] = {}
    exec(found[1], names)
    verify: Callable[..., bool] = names["verified"]
    return verify


@pytest.mark.django_db
def test_the_whole_story_of_an_approval_is_told_and_signed(
    manager: User, operator: User, receiver: Receiver
) -> None:
    _, secret = a_channel(manager, receiver.url)
    _, step, approval = a_waiting_call()
    assert send_due() == 1, "the reminder is not due yet"
    decide(approval, operator, reason="Go ahead, the password is hunter2.")
    lease = a_lease(Run.objects.get(), "worker-2")
    assert start(lease, step)
    actions.finish_call(lease, step.seq, Result("{}", False, "Reverted.", ""))
    send_due()
    assert receiver.types() == ["approval.asked", "approval.decided", "call.ended"]
    reminder = NotificationDelivery.objects.get(notice=NoticeKind.EXPIRING)
    assert (reminder.state, reminder.error) == ("dropped", "It was approved before.")

    headers, body = receiver.got[0]
    verify = snippet()
    assert verify(secret, headers, body)
    assert not verify(secret, headers, body + b" ") and not verify(secret, headers, body, -1)
    assert not verify(
        actions.renew_secret(NotificationChannel.objects.get().pk, user=manager)[1], headers, body
    )
    assert headers["idempotency-key"] == headers["webhook-id"]
    said = json.loads(body)
    assert said["title"] == "Approve? Revert api from v2.14.0 to v2.13.2"
    assert said["data"]["link"] == f"https://agents.example.com/approvals/{approval.pk}/"
    told = b"".join(body for _, body in receiver.got)
    assert b"Approved by olga." in told and b'"outcome": "succeeded"' in told
    for kept in (b"dep_0412", b"hunter2", b"I want to revert it", b"Let me look"):
        assert kept not in told, "no argument, no reason, nothing of the agent"


@pytest.mark.django_db
def test_each_other_end_is_told_too(manager: User, operator: User, receiver: Receiver) -> None:
    a_channel(manager, receiver.url, notices=["approval.expired", "approval.withdrawn", "call.ended"])
    _, _, overdue = a_waiting_call()
    Approval.objects.filter(pk=overdue.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    actions.expire_approvals(timezone.now())
    lease, _, _ = a_waiting_call(a_run("withdrawn"))
    actions.cancel_run(run_id=lease.run_id, actor="olga")
    old_lease, step, approval = a_waiting_call(a_run("unknown"))
    decide(approval, operator)
    new_lease = a_lease(Run.objects.get(pk=old_lease.run_id), "worker-2")
    assert start(new_lease, step)
    actions.recover_call(new_lease, step.seq, repeatable=False)
    lease, step, approval = a_waiting_call(a_run("changed"))
    decide(approval, operator)
    assert start(a_lease(Run.objects.get(pk=lease.run_id), "worker-2"), step, version="another") is None
    send_due()
    outcomes = [
        (each["type"], each["data"]["outcome"]) for each in map(json.loads, (b for _, b in receiver.got))
    ]
    assert outcomes == [
        ("approval.expired", "expired"),
        ("approval.withdrawn", "cancelled"),
        ("call.ended", "unknown"),
        ("approval.withdrawn", "invalidated"),
    ]


@pytest.mark.django_db
def test_a_reminder_comes_before_the_deadline_unless_somebody_decided(
    manager: User, operator: User, receiver: Receiver
) -> None:
    a_channel(manager, receiver.url, notices=["approval.expiring"])
    a_channel(
        manager, receiver.url, name="late", notices=["approval.expiring"], remind_at=2, remind_unit="minutes"
    )
    _, _, approval = a_waiting_call()
    whole = (approval.expires_at - approval.created_at).total_seconds()
    before = [
        (approval.expires_at - due).total_seconds()
        for due in NotificationDelivery.objects.order_by("pk").values_list("next_at", flat=True)
    ]
    assert before == [120, whole / 4]
    is_due()  # a clock that is wrong: it waits for its time again
    assert send_due() == 0 and receiver.got == []
    Approval.objects.update(expires_at=timezone.now() + timedelta(seconds=100))
    is_due(channel__name="late")
    assert send_due() == 1 and receiver.types() == ["approval.expiring"]
    decide(approval, operator)
    is_due()
    assert send_due() == 0
    assert set(NotificationDelivery.objects.values_list("state", flat=True)) == {"sent", "dropped"}


@pytest.mark.django_db
def test_without_a_channel_it_costs_one_query_and_filters_are_kept(
    manager: User, operator: User, receiver: Receiver
) -> None:
    _, _, approval = a_waiting_call()
    with CaptureQueriesContext(
        connection,
    ) as asked:
        decide(approval, operator)
    assert sum("runs_notification" in query["sql"] for query in asked.captured_queries) == 1
    a_channel(manager, receiver.url, environments=["staging"])
    a_channel(manager, receiver.url, name="others", agents=["somebody-else"])
    a_channel(manager, receiver.url, name="off", enabled=False)
    a_channel(manager, receiver.url, name="mine", agents=["incident"], environments=["production"])
    a_waiting_call(a_run("again"))
    assert set(NotificationDelivery.objects.values_list("channel_name", flat=True)) == {"mine"}


@pytest.mark.django_db
def test_what_fails_is_tried_again_later_each_time_and_given_up_in_the_end(
    manager: User, receiver: Receiver
) -> None:
    a_channel(manager, receiver.url, notices=["approval.asked"])
    receiver.answers = [with_status(500), with_status(503, retry_after="600"), with_status(200)]
    a_waiting_call()
    waits = []
    for _ in range(2):
        assert send_due() == 1
        delivery = NotificationDelivery.objects.get()
        assert delivery.state == "waiting" and delivery.error.startswith("It failed (50")
        waits.append((delivery.next_at - timezone.now()).total_seconds())
        is_due()
    assert waits[0] < 7 and 590 < waits[1] <= 600
    assert send_due() == 1
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts, delivery.response_status) == ("sent", 3, 200)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({body for _, body in receiver.got}) == 1, "a repeat is the same, byte for byte"

    actions.send_again(delivery.pk, user=manager)
    receiver.answers = [with_status(500)] * 8
    for _ in range(8):
        is_due()
        assert send_due() == 1
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == ("failed", 11)
    assert send_due() == 0 and "Send again" not in delivery.error


@pytest.mark.django_db
def test_redirects_are_not_followed_and_a_hanging_receiver_is_left(
    manager: User, receiver: Receiver, settings: Settings
) -> None:
    settings.AGENTOPS_NOTIFY_SECONDS = 0.5
    a_channel(manager, receiver.url, notices=["approval.asked"])
    receiver.answers = [with_status(302, location=receiver.url), receiver.hang]
    a_waiting_call()
    send_due()
    assert NotificationDelivery.objects.get().state == "failed" and len(receiver.got) == 1
    a_waiting_call(a_run("again"))
    send_due()
    latest = NotificationDelivery.objects.first()
    assert latest and (latest.state, latest.error) == ("waiting", "It did not answer within 0.5 s.")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",  # a name that resolves inward
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[::127.0.0.1]:{port}/",
        "http://[64:ff9b::7f00:1]:{port}/",
        "http://2130706433:{port}/",
        "http://0x7f.1:{port}/",
        "http://0.0.0.0:{port}/",
    ],
)
def test_nothing_is_sent_inward(url: str, receiver: Receiver) -> None:
    with pytest.raises(BadAddress, match="AGENTOPS_WEBHOOK_PRIVATE"):
        outgoing.post(url.format(port=receiver.port), b"{}", {}, seconds=2, private=Private())
    assert receiver.got == []


def test_what_is_listed_is_allowed_and_nothing_else(receiver: Receiver) -> None:
    address = f"http://localhost:{receiver.port}/"
    for listed in (["127.0.0.0/8"], ["localhost"]):
        assert outgoing.post(address, b"{}", {}, seconds=5, private=Private.parse(listed)).status == 200
    with pytest.raises(BadAddress):
        outgoing.post(address, b"{}", {}, seconds=5, private=Private.parse(["10.0.0.0/8", "elsewhere"]))
    mapped = f"http://[::ffff:127.0.0.1]:{receiver.port}/"
    assert outgoing.post(mapped, b"{}", {}, seconds=5, private=LOOPBACK).status == 200
    assert receiver.got[0][0]["host"] == f"localhost:{receiver.port}", "the name goes along"
    for wrong in ("10.0.0.1/8", "a b", "1.2.3", "http://x", ""):
        with pytest.raises(ValueError, match="neither"):
            Private.parse([wrong])


def test_what_is_no_receiver_is_said_in_a_sentence(receiver: Receiver) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
        with pytest.raises(Unreachable, match="cannot be reached"):
            outgoing.post(f"http://127.0.0.1:{closed}/", b"", {}, seconds=5, private=LOOPBACK)
    with pytest.raises(Unreachable, match="TLS could not be agreed on"):
        outgoing.post(f"https://127.0.0.1:{receiver.port}/", b"", {}, seconds=5, private=LOOPBACK)
    for wrong in (
        "ftp://x/",
        "file:///etc/passwd",
        "http://",
        "http://u:p@x/",
        "http://x/\r\nhost: y",
        "http://x:99999/",
    ):
        with pytest.raises(BadAddress):
            outgoing.check_address(wrong)


@pytest.mark.django_db
def test_a_chat_gets_text_and_blocks_that_mention_nobody(manager: User, receiver: Receiver) -> None:
    a_channel(manager, receiver.url, kind="slack", notices=["approval.asked"])
    preview = {"headline": "Scale <!channel> & *api*\n to 9", "reversible": False}
    a_waiting_call(preview=preview, quorum=2)
    send_due()
    said = json.loads(receiver.got[0][1])
    assert set(said) == {"text", "blocks"}
    assert said["text"].startswith("Approve? Scale &lt;!channel&gt; &amp; *api* to 9\n")
    assert "It cannot be undone. It needs 2 votes." in said["text"]
    link = f"https://agents.example.com/approvals/{Approval.objects.get().pk}/"
    assert said["text"].endswith(f"<{link}|Open the card>")
    header, section, context, buttons = said["blocks"]
    assert header["text"] == {
        "type": "plain_text",
        "text": "Approve? Scale <!channel> & *api* to 9",
        "emoji": False,
    }
    assert section["text"]["type"] == "plain_text" and buttons["elements"][0]["url"] == link
    assert context["elements"][0]["text"] == "Environment: production"


@pytest.mark.django_db
def test_e_mail_is_sent_as_the_setting_says(manager: User, settings: Settings, tmp_path: Path) -> None:
    settings.AGENTOPS_URL = "https://agents.example.com"
    settings.MAILERS = {}
    _, secret = a_channel(manager, kind="email", recipients="ops@example.com dana@example.com")
    assert secret == ""
    _, _, approval = a_waiting_call()
    send_due()
    delivery = NotificationDelivery.objects.get(notice=NoticeKind.ASKED)
    assert delivery.state == "failed" and "Set AGENTOPS_MAIL" in delivery.error
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    actions.send_again(delivery.pk, user=manager)
    send_due()
    (message,) = mail.outbox
    assert message.to == ["ops@example.com", "dana@example.com"]
    assert message.subject == "[agentops] Approve? Revert api from v2.14.0 to v2.13.2"
    assert f"decide: https://agents.example.com/approvals/{approval.pk}/" in message.body
    settings.MAILERS = environment_mailers(f"file://{tmp_path}")
    actions.send_again(delivery.pk, user=manager)
    send_due()
    (file,) = tmp_path.iterdir()
    assert f"<{delivery.message_id}@agentops>" in file.read_text()


def environment_mailers(value: str) -> dict[str, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("AGENTOPS_MAIL", value)
        return environment.mailers("AGENTOPS_MAIL", 5)


def test_settings_are_read_or_refused_in_a_sentence() -> None:
    options = environment_mailers("smtp://olga:p%40ss@mail.example.com:2525")["default"]["OPTIONS"]
    assert (options["password"], options["port"], options["use_tls"]) == ("p@ss", 2525, True)
    assert environment_mailers("smtps://mail.example.com")["default"]["OPTIONS"]["use_ssl"]
    assert "console" in environment_mailers("console:")["default"]["BACKEND"]
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("AGENTOPS_URL", "agents.example.com/")
        with pytest.raises(ImproperlyConfigured, match="is no address: write https"):
            environment.address("AGENTOPS_URL")
        variables.setenv("AGENTOPS_URL", "https://agents.example.com/")
        assert environment.address("AGENTOPS_URL") == "https://agents.example.com"
        variables.setenv("AGENTOPS_NOTIFY_SECONDS", "0")
        for odd in ("1_0", "١٠", "-1", "many"):
            variables.setenv("AGENTOPS_PACE", odd)
            with pytest.raises(ImproperlyConfigured, match="is not a number of zero or more"):
                environment.number("AGENTOPS_PACE", "1")
        with pytest.raises(ImproperlyConfigured, match=r"is too small: set it to 0\.5 or more"):
            environment.number("AGENTOPS_NOTIFY_SECONDS", "10", least="0.5")
    with pytest.raises(ImproperlyConfigured, match="AGENTOPS_MAIL is no mail address"):
        environment_mailers("mail.example.com")


@pytest.mark.django_db(transaction=True)
def test_two_senders_at_once_send_each_message_once(manager: User, receiver: Receiver) -> None:
    a_channel(manager, receiver.url, notices=["approval.asked"])
    for n in range(6):
        a_waiting_call(a_run(str(n)))
    claimed: list[int] = []
    barrier = threading.Barrier(2)

    def race() -> None:
        for pk in sorted(NotificationDelivery.objects.values_list("pk", flat=True)):
            barrier.wait(10)
            if deliver(pk):
                claimed.append(pk)
        connections.close_all()

    threads = [threading.Thread(target=race) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert len(ids) == len(set(ids)) == len(claimed) == 6 and receiver.most_at_once == 1


@pytest.mark.django_db(transaction=True)
def test_a_channel_that_hangs_does_not_hold_up_the_others(
    manager: User, receiver: Receiver, settings: Settings
) -> None:
    a_channel(manager, receiver.url, notices=["approval.asked"])
    for n in range(3):
        a_waiting_call(a_run(str(n)))
    receiver.answers = [receiver.hang]
    other = Receiver()
    try:
        with Sender():
            eventually(lambda: receiver.got)
            a_channel(manager, other.url, name="other", notices=["approval.asked"])
            for n in range(3):
                a_waiting_call(a_run(f"later {n}"))
            eventually(lambda: len(other.got) == 3)
            assert len(receiver.got) == 1, "one at a time"
            receiver.release.set()
        assert NotificationDelivery.objects.filter(channel__name="other", state="sent").count() == 3
    finally:
        other.close()


@pytest.mark.django_db
def test_a_late_answer_of_a_sender_that_lost_its_claim_counts_for_nothing(
    manager: User, receiver: Receiver
) -> None:
    a_channel(manager, receiver.url, notices=["approval.asked"])
    a_waiting_call()
    pk = NotificationDelivery.objects.get().pk
    first = actions.claim_delivery(pk, lease_seconds=60)
    assert first and actions.claim_delivery(pk, lease_seconds=60) is None
    is_due()  # its lease has run out
    second = actions.claim_delivery(pk, lease_seconds=60)
    assert second and second.message_id == first.message_id
    actions.record_delivery(first, actions.Outcome("too late", final=True))
    assert NotificationDelivery.objects.get().state == "sending"
    actions.record_delivery(second, actions.Outcome(status=200))
    assert NotificationDelivery.objects.get().state == "sent"


@pytest.mark.server
def test_another_worker_goes_on_where_one_was_killed_while_it_sent(tmp_path: Path) -> None:
    receiver = Receiver()
    installation = Installation(
        tmp_path,
        AGENTOPS_LEASE_SECONDS="1",
        AGENTOPS_NOTIFY_SECONDS="1",
        AGENTOPS_WEBHOOK_PRIVATE="127.0.0.1",
    )
    try:
        receiver.answers = [receiver.hang]
        made = installation.command("shell", "-v0", "-c", MAKE_A_CHANNEL.format(url=receiver.url))
        assert made.returncode == 0, made.stderr
        doomed = installation.start("worker")
        wait_for_line(doomed, "drives up to")
        eventually(lambda: receiver.got)
        doomed.kill()
        doomed.wait()
        assert installation.rows("SELECT state FROM runs_notificationdelivery") == [("sending",)]
        survivor = installation.start("worker")
        wait_for_line(survivor, "drives up to")
        eventually(lambda: installation.rows("SELECT 1 FROM runs_notificationdelivery WHERE state = 'sent'"))
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1 and len(receiver.got) == 2
    finally:
        installation.close()
        receiver.close()


MAKE_A_CHANNEL = """
from django.contrib.auth.models import User
from runs import actions
from runs.models import NotificationDelivery
user = User.objects.create_superuser("olga")
wanted = actions.WantedChannel("on-call", "json", url="{url}", notices=["approval.asked"])
channel, _ = actions.save_channel(wanted, user=user)
actions.send_test(channel.pk, user=user)
NotificationDelivery.objects.update(most_attempts=3)
"""


@pytest.mark.django_db
def test_the_pages_show_a_secret_once_and_the_log_says_what_happened(
    manager: User, viewer: User, receiver: Receiver, client: Client
) -> None:
    client.force_login(manager)
    form = {"name": "on-call", "kind": "json", "url": receiver.url, "notices": ["approval.asked"]}
    form |= {"remind_at": "25", "remind_unit": "percent", "enabled": "on"}
    refused = client.post("/notifications/new", form | {"url": "ftp://x"})
    assert refused.status_code == 422 and "has to begin with https" in refused.content.decode()
    shown = client.post("/notifications/new", form).content.decode()
    channel = NotificationChannel.objects.get()
    assert channel.secret in shown and channel.secret.startswith("whsec_")
    assert "is a channel named" in client.post("/notifications/new", form).content.decode().replace(
        "There ", ""
    )
    page = f"/notifications/{channel.pk}/"
    for address in ("/notifications/", page, "/notifications/deliveries/"):
        html = client.get(address).content.decode()
        assert channel.secret not in html and "team=1" not in html, "masked"
    client.post(page, form | {"url": "", "name": "pager"})
    channel.refresh_from_db()
    assert (channel.name, channel.url) == ("pager", receiver.url), (
        "an empty address keeps the one that is stored"
    )
    assert client.post(f"{page}secret").content.decode().count("whsec_") == 1

    client.post(f"{page}test")
    send_due()
    receiver.answers = [with_status(404)]
    a_waiting_call()
    send_due()
    log = client.get("/notifications/deliveries/").content.decode()
    assert "Test: A test of the channel pager, sent by nora" in log
    assert (
        "answered 200" in log and "It refused the message (404). Check the address." in log and "next" in log
    )
    delivery = NotificationDelivery.objects.get(notice="test")
    client.post(f"/notifications/deliveries/{delivery.pk}/again")
    assert send_due() == 1 and receiver.types()[-1] == "test"
    assert len(json.loads(client.get("/approvals/pending.json").content)["pending"]) == 1

    client.force_login(viewer)
    looked = client.get(page).content.decode()
    assert "Ask an administrator for the permission “notify”" in looked and 'id="recipients"' not in looked
    for action in ("test", "secret", "remove"):
        client.post(f"{page}{action}")
    client.post(page, form | {"name": "mine"})
    channel.refresh_from_db()
    assert channel.name == "pager" and receiver.types().count("test") == 2

    client.force_login(manager)
    client.post(f"{page}remove")
    assert not NotificationChannel.objects.exists()
    assert "pager" in client.get("/notifications/deliveries/").content.decode(), "its log stays"
    assert not NotificationDelivery.objects.filter(state="waiting").exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "fields",
    [
        {"name": " "},
        {"kind": "pigeon"},
        {"notices": []},
        {"notices": ["approval.eaten"]},
        {"remind_at": 0},
        {"remind_at": 100},
        {"url": ""},
        {"kind": "email", "recipients": "nobody"},
        {"kind": "email"},
    ],
)
def test_a_channel_that_cannot_be_is_refused(fields: dict[str, Any], manager: User) -> None:
    with pytest.raises(ActionError):
        a_channel(manager, **({"url": "https://hooks.example.com/"} | fields))
    assert not NotificationChannel.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("hooks.example.com/x", "has to begin with https:// or http://"),
        ("ftp://hooks.example.com/", "has to begin with https:// or http://"),
        ("https:///x", "has to begin with https:// or http://"),
        ("https://a..example.com/", "“a..example.com” can be no host"),
        ("https://256.1.1.1/", "“256.1.1.1” can be no host"),
        ("https://hooks.example.com:0/", "characters that it cannot have"),
        ("http://10.1.2.3/", "AGENTOPS_WEBHOOK_PRIVATE"),
        ("http://localhost:9000/", "AGENTOPS_WEBHOOK_PRIVATE"),
        ("http://127.1/", "AGENTOPS_WEBHOOK_PRIVATE"),
        ("http://2130706433/", "AGENTOPS_WEBHOOK_PRIVATE"),
        ("http://[::1]/", "AGENTOPS_WEBHOOK_PRIVATE"),
    ],
)
def test_an_address_that_can_never_work_is_refused_when_it_is_saved(
    url: str, words: str, manager: User, settings: Settings
) -> None:
    with pytest.raises(ActionError, match=re.escape(words)):
        a_channel(manager, url)
    assert not NotificationChannel.objects.exists()
    if "PRIVATE" in words:
        settings.AGENTOPS_WEBHOOK_PRIVATE = Private.parse(["10.0.0.0/8", "127.0.0.0/8", "::1", "localhost"])
        assert a_channel(manager, url)[0].url == url


RECORD = """
// What the browser is asked for and shows, beside doing it; and a tab that is in the background when told so.
window.shown = [];
window.asked = 0;
const real = window.Notification;
window.Notification = class extends real {
  constructor(title, options) {
    super(title, options);
    window.shown.push([title, options.body, options.tag]);
  }
  static requestPermission() { window.asked += 1; return real.requestPermission(); }
};
Object.defineProperty(document, "hidden", { get: () => Boolean(window.away) });
"""

ASK = """
from tests.factories import a_run, a_waiting_call
a_waiting_call(a_run("{question}"))
"""


@pytest.mark.browser
@pytest.mark.server
def test_the_browser_shows_new_approvals_only_when_asked_to_and_away(browser: Any, tmp_path: Path) -> None:
    installation = Installation(tmp_path)

    def ask(question: str) -> None:
        asked = installation.command("shell", "-v0", "-c", ASK.format(question=question))
        assert asked.returncode == 0, asked.stderr

    try:
        ask("before")
        made = installation.command(
            "shell",
            "-v0",
            "-c",
            "from django.contrib.auth.models import User; User.objects.create_user('olga')",
        )
        assert made.returncode == 0, made.stderr
        base = installation.serve()
        context = browser.new_context(base_url=base, permissions=["notifications"])
        page = context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        page.add_init_script(RECORD)
        page.goto(installation.command("signinlink", "olga", "--base-url", base).stdout.strip())
        page.goto("/approvals/")
        assert page.evaluate("[asked, localStorage.length]") == [0, 0], "nothing is asked without a click"
        with page.expect_response("**/approvals/pending.json"):
            page.get_by_role("button", name="Notify me in this browser").click()
        page.get_by_role("button", name="Notified in this browser: stop").wait_for()
        assert page.evaluate("asked") == 1

        with page.expect_response("**/approvals/pending.json"):
            ask("somebody looks")
        page.evaluate("window.away = true")
        ask("nobody looks")
        page.wait_for_function("() => shown.length > 0")
        newest = max(row[0] for row in installation.rows("SELECT id FROM runs_approval"))
        assert page.evaluate("shown") == [
            [
                "Approve? Revert api from v2.14.0 to v2.13.2",
                "production · incident · run 3",
                f"agentops-approval-{newest}",
            ]
        ]
        page.get_by_role("button", name="Notified in this browser: stop").click()
        page.get_by_role("button", name="Notify me in this browser").wait_for()
        assert not problems
        context.close()
    finally:
        installation.close()
