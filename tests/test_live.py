"""Live pages: what was committed is sent, nothing is lost, and who may not look is sent away."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from channels.layers import channel_layers
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from django.utils import timezone

from agentops.asgi import application
from runs import actions, watching
from runs.actions.indexing import Indexer
from runs.consumers import GONE
from runs.models import Approval, Budget, Run, RunStatus
from runs.reading.runs import newest_runs
from tests.factories import a_lease, a_question, a_run, a_turn, a_waiting_call, an_attempt

pytestmark = pytest.mark.django_db(transaction=True)
ORIGIN = (b"origin", b"http://localhost")


@pytest.fixture(autouse=True)
def fresh_layer() -> Iterator[None]:
    """The in-memory layer belongs to one event loop, and every test has its own.

    The thread in which pages are read outlives the test; the database must not wait for its connection.
    """
    channel_layers.backends.clear()
    yield
    channel_layers.backends.clear()
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


@pytest.fixture
def cookie(operator: User) -> bytes:
    """Olga's session."""
    client = Client()
    client.force_login(operator)
    return "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items()).encode()


class Socket:
    """A WebSocket to the real application, without a network."""

    def __init__(self, address: str, *headers: tuple[bytes, bytes]) -> None:
        path, _, query = address.partition("?")
        scope = {
            "type": "websocket",
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"host", b"localhost"), *headers],
            "subprotocols": [],
        }
        self._wire = ApplicationCommunicator(application, scope)

    async def connect(self) -> bool:
        await self._wire.send_input({"type": "websocket.connect"})
        answer = await self.receive()
        return bool(answer["type"] == "websocket.accept")

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._wire.receive_output(timeout=10)
        return message

    async def send(self, text: str) -> None:
        await self._wire.send_input({"type": "websocket.receive", "text": text})

    async def close(self) -> None:
        await self._wire.send_input({"type": "websocket.disconnect", "code": 1000})
        await self._wire.wait(timeout=10)


class Page:
    """An open live page: the frames it was sent."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.frames: list[str] = []

    async def hear(self, part: str, words: str = "") -> str:
        """The next version of this part that holds these words, however many frames come before.

        A turn may also come with the whole trace.
        """
        wanted = {part, "steps"} if part.startswith("turn-") else {part}
        while True:
            message = await self.socket.receive()
            assert message["type"] == "websocket.send", message
            html: str = message["text"]
            self.frames.append(html)
            found = re.search(r'id="([^"]+)"[^>]*hx-swap-oob="morph"', html)
            if found and found[1] in wanted and words in html:
                return html

    async def say(self, message: Any) -> None:
        await self.socket.send(message if isinstance(message, str) else json.dumps(message))


@asynccontextmanager
async def open_page(address: str, cookie: bytes) -> AsyncIterator[Page]:
    """Connect as the browser would; closed at the end."""
    socket = Socket(address, ORIGIN, (b"cookie", cookie))
    assert await socket.connect()
    yield Page(socket)
    await socket.close()


async def closing_code(address: str, cookie: bytes) -> int:
    socket = Socket(address, ORIGIN, (b"cookie", cookie))
    assert await socket.connect()
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.close":
            code: int = message["code"]
            await socket.close()
            return code


def do[**P, T](act: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """In a thread with a database connection of its own, as another process would; closed at the end."""

    def acted(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return act(*args, **kwargs)
        finally:
            connections.close_all()

    return database_sync_to_async(acted, thread_sensitive=False)


def a_question_on_a_page() -> tuple[Approval, str]:
    """An open approval, and the live address of its run."""
    _, step, approval = a_waiting_call()
    return approval, f"/live/runs/{step.run.request_id}/"


async def test_a_run_page_gets_steps_as_they_are_committed(cookie: bytes) -> None:
    run = await do(a_run)()
    async with open_page(f"/live/runs/{run.request_id}/", cookie) as page:
        assert "In line" in await page.hear("steps")
        lease = await do(a_lease)(run)
        await page.hear("run-head", "Running")
        step = await do(an_attempt)(lease)
        assert 'id="row-1"' in await page.hear("steps", "row-1")
        await do(actions.save_draft)(lease, step, "The pool is <b>full</b>")
        assert "The pool is &lt;b&gt;full" in await page.hear("panel", "The pool is")
        await do(actions.save_draft)(lease, step, "The pool is full because")
        await page.hear("panel", "full because")


async def test_only_what_changed_is_sent_again(cookie: bytes) -> None:
    run = await do(a_run)()
    lease = await do(a_lease)(run)
    await do(a_turn)(lease, text="first")
    step = await do(an_attempt)(lease)
    async with open_page(f"/live/runs/{run.request_id}/", cookie) as page:
        await page.hear("pending-count")  # the end of the snapshot
        page.frames.clear()
        await do(actions.save_draft)(lease, step, "thinking")
        await page.hear("panel", "thinking")
        assert not any('id="turn-1"' in frame for frame in page.frames)


async def test_connecting_again_sends_everything_that_was_missed(cookie: bytes) -> None:
    run = await do(a_run)()
    async with open_page(f"/live/runs/{run.request_id}/", cookie) as page:
        await page.hear("steps")
    lease = await do(a_lease)(run)
    await do(a_turn)(lease, ("get_metrics", "read", {}), text="while you were away")
    async with open_page(f"/live/runs/{run.request_id}/", cookie) as page:
        html = await page.hear("steps")
        assert "while you were away" in html
        assert 'id="row-2"' in html


async def test_the_browser_chooses_the_step_and_can_follow_again(cookie: bytes) -> None:
    _, address = await do(a_question_on_a_page)()
    async with open_page(f"{address}?step=1", cookie) as page:
        assert 'data-step="1"' in await page.hear("panel")
        await page.say({"step": 2})
        assert 'data-step="2"' in await page.hear("panel", "revert_deployment")
        await page.say({"step": 1})
        await page.hear("panel", "Model turn")
        await page.say({"step": None})
        await page.hear("panel", "revert_deployment")


@pytest.mark.parametrize("junk", ["", "{", "[]", "null", '{"step": "x"}', '{"step": -1}', "x" * 5000])
async def test_junk_from_the_browser_is_ignored(cookie: bytes, junk: str) -> None:
    _, address = await do(a_question_on_a_page)()
    async with open_page(address, cookie) as page:
        await page.hear("panel")
        await page.say(junk)
        await page.say({"step": 1})
        await page.hear("panel", "Model turn")


async def test_an_answer_reaches_the_page(cookie: bytes) -> None:
    run = await do(a_run)()
    lease = await do(a_lease)(run)
    async with open_page(f"/live/runs/{run.request_id}/", cookie) as page:
        assert "Not yet" in await page.hear("verdict")
        await do(a_turn)(lease, text="It is fixed.")
        await do(actions.end_run)(lease, status=RunStatus.SUCCEEDED, final_response="It is fixed.")
        assert "It is fixed." in await page.hear("verdict", "It is fixed.")


async def test_a_decision_elsewhere_takes_the_buttons_away(cookie: bytes, second_operator: User) -> None:
    approval, address = await do(a_question_on_a_page)()
    async with (
        open_page(address, cookie) as run_page,
        open_page(f"/live/approvals/?rows={approval.pk}&open={approval.pk}", cookie) as queue,
    ):
        assert "Approve this revert" in await run_page.hear("steps")
        assert "Approve this revert" in await queue.hear("card")
        assert 'data-count="1"' in await queue.hear("pending-count")
        await do(actions.decide)(
            approval_id=approval.pk, voter=second_operator, verdict="reject", reason="no",
            revision=1, digest=approval.digest,
        )  # fmt: skip
        assert "Rejected by dana" in await queue.hear(f"ticket-{approval.pk}", "dana")
        assert "Approve this revert" not in await queue.hear("card", "It did not run")
        assert 'data-count="0"' in await queue.hear("pending-count", 'data-count="0"')
        assert "Approve this revert" not in await run_page.hear("turn-1", "by dana")


async def test_new_questions_are_counted_and_never_inserted(cookie: bytes) -> None:
    async with open_page("/live/approvals/?rows=&open=", cookie) as queue:
        assert " hidden>" in await queue.hear("new-asks")
        await do(a_waiting_call)()
        html = await queue.hear("new-asks", "1 new")
        assert " hidden>" not in html


async def test_the_list_changes_rows_in_place_and_counts_new_ones(cookie: bytes) -> None:
    run = await do(a_run)("first")
    newest = await do(newest_runs)()
    async with open_page(f"/live/runs/?newest={newest}&rows={run.pk}", cookie) as page:
        assert "Queued" in await page.hear(f"run-{run.pk}")
        await page.hear("new-runs")
        await do(a_lease)(run)
        await page.hear(f"run-{run.pk}", "Running")
        other = await do(a_run)("second")
        assert "1 new" in await page.hear("new-runs", "1 new")
        assert not any(f'id="run-{other.pk}"' in frame for frame in page.frames)


async def test_a_filtered_list_counts_only_what_fits(cookie: bytes) -> None:
    async with open_page("/live/runs/?q=pool&newest=&rows=", cookie) as page:
        await page.hear("new-runs")
        await do(a_run)("something else")
        await page.hear("facets")
        await do(a_run)("a pool")
        await do(lambda: Indexer().follow())()
        await page.hear("new-runs", "1 new")


async def test_a_budget_that_is_set_elsewhere_and_what_is_spent_of_it_appear(cookie: bytes) -> None:
    async with open_page("/live/budgets/", cookie) as page:
        assert "No budgets yet" in await page.hear("budgets")
        await do(actions.set_budget)(
            actor="dana", scope="installation", period="month", limits={"tool_calls": "50"}
        )
        assert "0 of 50" in await page.hear("budgets", "installation per month")
        assert "dana" in await page.hear("changes", "50 tool calls")
        run = await do(a_run)()
        lease = await do(a_lease)(run)
        (step,) = await do(a_turn)(lease, ("get_metrics", "read", {}))
        await do(actions.allow_call)(lease, step.seq, rule="reads")
        await do(actions.start_call)(lease, step.seq, tool_version=step.tool_version)
        await page.hear("budgets", "1 of 50")
        budget = (await do(Budget.objects.get)()).pk
    async with open_page(f"/live/budgets/{budget}/", cookie) as page:
        await page.hear("budget", "1 of 50")
        assert "No run had to stop for it" in await page.hear("rest")
        assert "<polyline" in await page.hear("charts")
        await do(actions.remove_budget)(budget_id=budget, actor="dana")
    assert await closing_code(f"/live/budgets/{budget}/", cookie) == 4404


@pytest.mark.parametrize("path", ["/live/", "/live/runs/", "/live/approvals/"])
async def test_a_stranger_is_told_to_sign_in(path: str) -> None:
    assert await closing_code(path, b"") == 4401


async def test_an_unknown_run_ends_the_connection(cookie: bytes) -> None:
    assert await closing_code("/live/runs/00000000-0000-0000-0000-000000000000/", cookie) == 4404


async def test_another_site_cannot_open_a_live_page(cookie: bytes) -> None:
    socket = Socket("/live/", (b"origin", b"https://evil.example"), (b"cookie", cookie))
    assert not await socket.connect()


@pytest.mark.parametrize("ending", ["disabled", "signed out", "deleted"])
async def test_who_may_not_look_any_more_is_dropped(cookie: bytes, operator: User, ending: str) -> None:
    def end() -> None:
        if ending == "disabled":
            User.objects.filter(pk=operator.pk).update(is_active=False)
        elif ending == "deleted":
            operator.delete()
        else:
            client = Client()
            client.cookies.load(cookie.decode())
            client.post("/sign-out/")
        a_run()  # anything that makes pages look again

    async with open_page("/live/", cookie) as page:
        await page.hear("pending-count")
        await do(end)()
        assert await page.socket.receive() == {"type": "websocket.close", "code": 4401}


async def test_a_viewer_gets_no_buttons_over_the_wire(viewer: User) -> None:
    def session() -> bytes:
        client = Client()
        client.force_login(viewer)
        return f"sessionid={client.cookies['sessionid'].value}".encode()

    approval, _ = await do(a_question_on_a_page)()
    cookie = await do(session)()
    async with open_page(f"/live/approvals/?rows={approval.pk}&open={approval.pk}", cookie) as queue:
        html = await queue.hear("card")
        assert "You may look but not decide" in html
        assert 'name="verdict"' not in html


async def test_the_watcher_ends_with_the_last_page(cookie: bytes) -> None:
    loop = asyncio.get_running_loop()
    async with open_page("/live/", cookie), open_page("/live/", cookie) as page:
        await page.hear("pending-count")
        assert loop in watching._watches
    assert loop not in watching._watches


async def test_a_lost_hint_costs_nothing(cookie: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runs.consumers.LOOK_AGAIN_SECONDS", 0.05)
    run = await do(a_run)()
    async with open_page(f"/live/runs/{run.request_id}/", cookie) as page:
        await page.hear("run-head")

        def change_without_a_hint() -> None:
            Run.objects.filter(pk=run.pk).update(
                status=RunStatus.PAUSED, explanation="The budget is used up."
            )

        await do(change_without_a_hint)()
        await page.hear("run-notice", "The budget is used up.")


async def test_an_expired_question_loses_its_buttons(cookie: bytes) -> None:
    approval, address = await do(a_question_on_a_page)()
    async with open_page(address, cookie) as page:
        assert "Approve this revert" in await page.hear("steps")

        def expire() -> None:
            Approval.objects.filter(pk=approval.pk).update(expires_at=timezone.now())
            actions.expire_approvals(timezone.now())

        await do(expire)()
        html = await page.hear("turn-1", "nobody decided in time")
        assert "Approve this revert" not in html


async def test_people_who_look_at_the_same_run_see_it_with_their_own_rights(
    cookie: bytes, viewer: User
) -> None:
    """What is read once for both must not give one the buttons of the other."""

    def session() -> bytes:
        client = Client()
        client.force_login(viewer)
        return f"sessionid={client.cookies['sessionid'].value}".encode()

    run = await do(a_run)()
    lease = await do(a_lease)(run)
    path = f"/live{run.get_absolute_url()}"
    async with (
        open_page(path, cookie) as own,
        open_page(path, await do(session)()) as other,
    ):
        assert "/cancel" in await own.hear("controls")
        assert "/cancel" not in await other.hear("controls")
        await do(a_turn)(lease, ("revert_deployment", "destructive", {}), text="Going back.")
        for page in (own, other):
            await page.hear("turn-1", "revert_deployment")
        await do(actions.ask_approval)(lease, 2, a_question({}))
        assert 'name="verdict"' in await own.hear("turn-1", "ask-")
        assert 'name="verdict"' not in await other.hear("turn-1", "ask-")


@pytest.mark.parametrize("path", ["/live/nothing/", "/live/runs/x/"])
async def test_a_socket_to_no_page_is_closed_in_good_order(path: str, cookie: bytes) -> None:
    assert await closing_code(path, cookie) == GONE
