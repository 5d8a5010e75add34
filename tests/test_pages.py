"""The pages: what they show, what they refuse, and that nothing people or models wrote becomes markup."""

from __future__ import annotations

import json
import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.test import Client, RequestFactory
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries

from runs import actions
from runs.actions.approvals import MAX_REASON_CHARACTERS
from runs.actions.indexing import Indexer
from runs.actions.starting import MAX_QUESTION_CHARACTERS
from runs.models import Approval, ApprovalState, Charge, Run, RunStatus, Step, StepStatus, Vote
from runs.reading import words
from runs.reading.export import log_text
from runs.views import errors
from tests.factories import a_lease, a_run, a_turn, a_waiting_call
from tools.models import Severity, Ticket

pytestmark = pytest.mark.django_db
EVIL = '<script>alert("x")</script>'


@pytest.fixture
def page(client: Client, operator: User) -> Client:
    """Olga's browser."""
    client.force_login(operator)
    return client


def text_of(client: Client, path: str, status: int = 200) -> str:
    response = client.get(path)
    assert response.status_code == status, path
    return response.content.decode()


def ended(run: Run, **fields: object) -> Run:
    Run.objects.filter(pk=run.pk).update(
        status=RunStatus.SUCCEEDED, started_at=run.created_at, ended_at=timezone.now(), **fields
    )
    return Run.objects.get(pk=run.pk)


# ------------------------------------------------------------------ list


def test_an_empty_list_says_how_to_begin(page: Client) -> None:
    html = text_of(page, "/")
    assert "No runs yet" in html
    assert 'href="/runs/new"' in html


def test_the_list_shows_runs_newest_first_with_what_they_need(page: Client) -> None:
    a_run("An older question")
    a_waiting_call(a_run("A newer question"))
    html = text_of(page, "/")
    assert html.index("A newer question") < html.index("An older question")
    assert "Revert api from v2.14.0 to v2.13.2" in html
    assert "in line for a worker" in html


def test_the_list_says_on_which_day_a_run_began(page: Client) -> None:
    now = timezone.now()
    for age in (timedelta(0), timedelta(days=1), timedelta(days=400)):
        Run.objects.filter(pk=a_run("why").pk).update(created_at=now - age)
    html = text_of(page, "/")
    ages = re.findall(r't-age r"><time [^>]+>([^<]+)</time>', html)
    assert ages == [words.day_or_time(now - timedelta(days=days), now) for days in (0, 1, 400)]
    assert len(set(ages)) == 3


@pytest.mark.parametrize("found", ["POOL exhausted", "leaks one connection", "incident"])
def test_search_finds_question_answer_and_agent(page: Client, found: str) -> None:
    ended(a_run("PostgreSQL pool exhausted"), final_response="api leaks one connection")
    Run.objects.create(agent="other", model="m", user_query="Something else", config="{}")
    Indexer().follow()
    html = text_of(page, f"/?q={found}")
    assert "PostgreSQL pool exhausted" in html
    assert "Something else" not in html


def test_search_finds_a_request_id_with_or_without_its_dashes(page: Client) -> None:
    run = a_run("the one")
    a_run("another question")
    for wanted in (str(run.request_id), run.request_id.hex[:12]):
        html = text_of(page, f"/?q={wanted}")
        assert "the one" in html
        assert "another question" not in html


@pytest.mark.parametrize("query", ["%", "_", "'", '"', "\\", "\x00", "ü" * 500, EVIL])
def test_search_takes_any_text_literally(page: Client, query: str) -> None:
    a_run("plain")
    response = page.get("/", {"q": query})
    assert response.status_code == 200
    assert "<script>alert" not in response.content.decode()


def test_nothing_found_offers_the_way_back(page: Client) -> None:
    a_run("plain")
    html = text_of(page, "/?q=zebra&status=failed")
    assert "No run matches" in html
    assert "Show all runs" in html


def test_unknown_filters_and_cursors_are_ignored(page: Client) -> None:
    a_run("plain")
    assert "plain" in text_of(page, "/?status=nonsense&before=junk&step=%00")


def test_older_runs_are_one_link_away(page: Client) -> None:
    for n in range(52):
        a_run(f"question number {n:02}")
    Indexer().follow()
    html = text_of(page, "/?q=question")
    assert "question number 51" in html
    assert "question number 01" not in html
    older = re.search(r'rel="next" href="([^"]+)"', html)
    assert older
    html = text_of(page, older[1].replace("&amp;", "&"))
    assert "question number 01" in html
    assert "no older ones" in html


def test_the_list_takes_the_same_few_queries_for_many_runs(
    page: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for n in range(12):
        lease = a_lease(a_run(f"run {n}"))
        a_turn(lease, ("get_metrics", "read", {}))
    a_waiting_call()
    # session, user, start page, newest, keys, rows, tags, worked, asked, doing, facets (4), searches,
    # workers, unattended, pending, unknown, permissions (2)
    with django_assert_num_queries(21):
        assert page.get("/").status_code == 200


# ------------------------------------------------------------------- new


def start(client: Client, **fields: str) -> tuple[int, str, str]:
    values = {"question": "Why is it slow?", "agent": "incident", "request_id": str(uuid.uuid4())}
    response = client.post("/runs/new", values | fields)
    return response.status_code, response.content.decode(), response.get("Location", "")


def test_a_question_becomes_a_run_and_its_page(page: Client, operator: User) -> None:
    status, _, location = start(page)
    run = Run.objects.get()
    assert (status, location) == (302, f"/runs/{run.request_id}/")
    assert (run.user_query, run.created_by, run.started_by) == ("Why is it slow?", operator, "olga")


def test_the_form_sent_twice_starts_one_run(page: Client) -> None:
    request_id = str(uuid.uuid4())
    first, second = start(page, request_id=request_id), start(page, request_id=request_id)
    assert first == second
    assert Run.objects.count() == 1


def test_the_form_takes_exactly_the_questions_that_the_action_takes(page: Client) -> None:
    longest = "é" * MAX_QUESTION_CHARACTERS
    assert start(page, question=f"\r\n {longest} ")[0] == 302
    assert Run.objects.get().user_query == longest
    for question in ("", longest + "é"):
        with pytest.raises(actions.InvalidQuestion) as refused:
            actions.checked_question(question)
        status, html, _ = start(page, question=question)
        assert status == 422
        assert str(refused.value) in html
    assert longest in text_of(page, f"/runs/new?q={longest}")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"question": "  \n "}, "Write what the agent should find out"),
        ({"question": "x" * 100_000}, "The question has 100,000 characters; at most 20,000 are taken"),
        ({"question": "\x00\x07"}, "Write what the agent should find out"),
        ({"agent": EVIL}, "There is no agent"),
        ({"scenario": "S99"}, "There is no incident"),
        ({"request_id": "x"}, "Reload the page"),
    ],
)
def test_a_bad_question_is_refused_in_words_and_kept(
    page: Client, fields: dict[str, str], sentence: str
) -> None:
    status, html, _ = start(page, **fields)
    assert status == 422
    assert sentence in html
    assert "<script>alert" not in html
    assert fields.get("question", "Why is it slow?").strip()[:50].replace("\x00\x07", "") in html
    assert Run.objects.count() == 0


def test_a_viewer_is_told_why_there_is_no_button(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    assert "Start run" not in re.sub(r"<title>.*</title>", "", text_of(client, "/").split("No runs yet")[0])
    assert "You may look but not start runs" in text_of(client, "/runs/new")
    status, html, _ = start(client)
    assert status == 403
    assert "Ask an administrator" in html
    assert Run.objects.count() == 0


# ------------------------------------------------------------------- run


def test_the_run_page_shows_figures_trace_and_the_question(page: Client) -> None:
    _, step, _ = a_waiting_call()
    html = text_of(page, step.run.get_absolute_url())
    assert "Waiting for approval" in html
    assert 'id="row-1"' in html
    assert 'id="row-2"' in html
    assert "of 60" in html
    assert "of $2.00" in html
    assert "Approve this revert" in html
    assert 'data-step="2"' in html


def test_a_step_is_chosen_by_its_address(page: Client) -> None:
    _, step, _ = a_waiting_call()
    html = text_of(page, f"{step.run.get_absolute_url()}?step=1")
    assert "1 · Model turn" in html
    assert "Let me look." in html
    assert "$ per million" in html


@pytest.mark.parametrize("step", ["0", "99", "x", "-1", "9" * 30, "²"])
def test_a_step_that_does_not_exist_falls_back_to_the_live_one(page: Client, step: str) -> None:
    _, waiting, _ = a_waiting_call()
    assert "2 · revert_deployment" in text_of(page, f"{waiting.run.get_absolute_url()}?step={step}")


def test_choosing_a_step_over_htmx_answers_with_the_panel_alone(page: Client) -> None:
    _, step, _ = a_waiting_call()
    response = page.get(
        f"{step.run.get_absolute_url()}?step=1", headers={"HX-Request": "true", "HX-Target": "panel"}
    )
    html = response.content.decode().strip()
    assert html.startswith('<aside class="panel"')
    assert html.endswith("</aside>")


def test_nothing_that_models_tools_or_people_wrote_becomes_markup(page: Client) -> None:
    run = a_run(f"question {EVIL}")
    _, step, _ = a_waiting_call(run)
    Step.objects.filter(seq=1).update(text=EVIL, reasoning=EVIL, summary=EVIL, error=EVIL, error_kind="x")
    Step.objects.filter(pk=step.pk).update(
        arguments=json.dumps({EVIL: EVIL}), result=json.dumps({"summary": EVIL}), summary=EVIL, name=EVIL
    )
    Run.objects.filter(pk=run.pk).update(final_response=EVIL, explanation=EVIL, started_by=EVIL, agent=EVIL)
    Ticket.objects.create(
        reference="INC-1", title=EVIL, severity=Severity.SEV2, summary=EVIL, dedup_key="k",
        request_id=str(run.request_id), services=[EVIL], evidence_ids=[EVIL],
    )  # fmt: skip
    approval = Approval.objects.get()
    approval.preview = json.dumps(
        approval.card | {"headline": EVIL, "object": EVIL, "chips": [{"text": EVIL, "tone": EVIL}]}
    )
    approval.save()
    address = run.get_absolute_url()
    for path in (
        "/", f"{address}?step=1", f"{address}?step=2", "/approvals/", f"/approvals/{approval.pk}/",
        "/tickets/", "/tickets/INC-1/", "/costs/",
    ):  # fmt: skip
        html = text_of(page, path)
        assert "<script>alert" not in html, path
        assert 'alert("x")' not in html, path


def test_a_finished_run_shows_its_answer_first(page: Client) -> None:
    lease = a_lease(a_run())
    a_turn(lease, text="It is fixed.")
    actions.end_run(lease, status=RunStatus.SUCCEEDED, final_response="It is fixed.\n\nBecause.")
    run = Run.objects.get()
    html = text_of(page, run.get_absolute_url())
    assert "<p>It is fixed.</p><p>Because.</p>" in html
    assert html.index('id="verdict"') < html.index('id="trace"')
    assert 'id="follow"' not in html


def test_a_failed_run_says_what_can_be_done(page: Client) -> None:
    lease = a_lease(a_run())
    actions.end_run(lease, status=RunStatus.FAILED, explanation="The key is not valid. Set another one.")
    html = text_of(page, Run.objects.get().get_absolute_url())
    assert "The run failed" in html
    assert "The key is not valid. Set another one." in html


def test_an_unknown_run_is_a_designed_404(page: Client) -> None:
    html = text_of(page, f"/runs/{uuid.uuid4()}/", 404)
    assert "There is no run" in html
    assert "Traceback" not in html


def test_the_log_is_one_json_object(page: Client) -> None:
    lease = a_lease(a_run("Why?"))
    a_turn(lease, ("get_metrics", "read", {"service_name": "api"}))
    run = Run.objects.get()
    response = page.get(f"/runs/{run.request_id}.json")
    assert response["Content-Type"].startswith("application/json")
    log = response.json()
    assert log["request_id"] == str(run.request_id)
    assert log["user_query"] == "Why?"


def test_the_log_of_a_page_is_the_log_of_the_command_line(page: Client) -> None:
    lease = a_lease(a_run("Why?"))
    a_turn(lease, ("search_logs", "read", {"query": "lone \ud800 surrogate"}))
    run = Run.objects.get()
    assert text_of(page, f"/runs/{run.request_id}.json") == log_text(run)
    assert "lone \\ud800 surrogate" in log_text(run)


# ------------------------------------------------------------- approvals


def decide(client: Client, approval: Approval, verdict: str, **fields: object) -> tuple[int, str, str]:
    values = {"verdict": verdict, "revision": approval.revision, "digest": approval.digest} | fields
    response = client.post(f"/approvals/{approval.pk}/decide/", values)
    return response.status_code, response.content.decode(), response.get("Location", "")


def test_the_queue_opens_the_most_urgent_question(page: Client) -> None:
    a_waiting_call(decide_within_seconds=900)
    _, _, urgent = a_waiting_call(decide_within_seconds=60)
    html = text_of(page, "/approvals/")
    assert f'action="/approvals/{urgent.pk}/decide/"' in html
    assert html.count('class="ticket"') == 2
    assert '<span class="env-prod">production</span>' in html
    assert 'data-count="2"' in html


def test_the_agents_own_reason_is_folded_and_labelled(page: Client) -> None:
    a_waiting_call()
    html = text_of(page, "/approvals/")
    label = html.index("Nobody has checked it")
    fold = html.rindex("<details", 0, label)
    assert "open" not in html[fold : html.index(">", fold)]
    assert "I want to revert it." in html[label:]


def test_arguments_seen_in_a_tool_result_are_marked(page: Client) -> None:
    lease = a_lease(a_run())
    (read,) = a_turn(lease, ("list_recent_deployments", "read", {}))
    actions.allow_call(lease, read.seq, rule="reads")
    actions.start_call(lease, read.seq, tool_version=read.tool_version)
    actions.finish_call(lease, read.seq, actions.Result('{"id": "dep_0412"}', False, "one", ""))
    actions.hand_back(lease)
    a_waiting_call(Run.objects.get())
    assert "First seen in step 2, list_recent_deployments" in text_of(page, "/approvals/")


def test_an_approval_is_recorded_and_leads_on(page: Client, operator: User) -> None:
    _, step, approval = a_waiting_call()
    status, _, location = decide(page, approval, "approve")
    assert (status, location) == (302, "/approvals/")
    step.refresh_from_db()
    assert step.status == StepStatus.READY
    assert Vote.objects.get().voter == operator
    assert "Approved: Revert api" in text_of(page, "/approvals/")


def test_deciding_on_the_run_page_leads_back_to_it(page: Client) -> None:
    _, step, approval = a_waiting_call()
    address = step.run.get_absolute_url()
    assert decide(page, approval, "approve", next=address)[2] == address


def test_a_decision_never_leads_to_another_site(page: Client) -> None:
    _, _, approval = a_waiting_call()
    assert decide(page, approval, "approve", next="//evil.example/")[2] == "/approvals/"


def test_a_rejection_carries_chips_and_words_to_the_agent(page: Client) -> None:
    _, step, approval = a_waiting_call()
    decide(page, approval, "reject", why=["risk", "evidence"], say="Wait for the sale to end.")
    step.refresh_from_db()
    assert step.status == StepStatus.REFUSED
    assert "Too risky now. Needs evidence. Wait for the sale to end." in step.result


def test_a_reason_may_be_as_long_as_the_action_takes_and_is_never_cut(page: Client) -> None:
    _, _, approval = a_waiting_call()
    for path in ("/approvals/", approval.run.get_absolute_url()):
        assert f'name="say" rows="{3 if "approvals" in path else 2}" maxlength="{MAX_REASON_CHARACTERS}"' in (
            text_of(page, path)
        )
    too_long = "x" * (MAX_REASON_CHARACTERS + 1)
    status, html, _ = decide(page, approval, "reject", say=too_long)
    assert status == 422
    assert "The reason has 2,001 characters; at most 2,000 are taken. Shorten it." in html
    assert too_long in html
    status, html, _ = decide(page, approval, "reject", say=too_long[:-1], why=["risk"])
    assert status == 422
    assert Vote.objects.count() == 0
    lines = "\r\n".join(["x" * 9] * 200)  # 1,999 characters as a browser counts them
    assert decide(page, approval, "reject", say=lines)[0] == 302
    assert Vote.objects.get().reason == lines.replace("\r", "")


def test_who_comes_second_is_told_who_was_first_and_keeps_the_text(
    page: Client, second_operator: User
) -> None:
    _, _, approval = a_waiting_call()
    actions.decide(
        approval_id=approval.pk, voter=second_operator, verdict="reject", reason="no",
        revision=1, digest=approval.digest,
    )  # fmt: skip
    status, html, _ = decide(page, approval, "approve", say="my long explanation")
    assert status == 409
    assert "Already rejected by dana" in html
    assert "my long explanation" in html
    assert "Approve this revert" not in html
    assert Vote.objects.count() == 1


def test_a_decision_after_the_deadline_does_nothing(page: Client) -> None:
    _, step, approval = a_waiting_call()
    Approval.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    status, html, _ = decide(page, approval, "approve")
    assert status == 409
    assert "The deadline has passed" in html
    step.refresh_from_db()
    assert step.status == StepStatus.REFUSED


@pytest.mark.parametrize(
    "fields", [{"digest": "0" * 64}, {"digest": "junk"}, {"revision": "7"}, {"revision": ""}]
)
def test_a_vote_on_other_bytes_than_shown_is_void(page: Client, fields: dict[str, str]) -> None:
    _, _, approval = a_waiting_call()
    status, html, _ = decide(page, approval, "approve", **fields)
    assert status in {409, 422}
    assert "Look at it again" in html
    assert Vote.objects.count() == 0


@pytest.mark.parametrize("verdict", ["", "maybe", "approve\x00"])
def test_a_vote_is_approve_or_reject(page: Client, verdict: str) -> None:
    _, _, approval = a_waiting_call()
    status, _, _ = decide(page, approval, verdict)
    assert status == 422
    assert Vote.objects.count() == 0


def test_an_irreversible_act_needs_its_object_typed(page: Client) -> None:
    _, _, approval = a_waiting_call()
    approval.preview = json.dumps(approval.card | {"reversible": False, "object": "postgres"})
    approval.save()
    status, html, _ = decide(page, approval, "approve", confirm="api")
    assert status == 422
    assert "Type postgres to approve" in html
    assert Vote.objects.count() == 0
    assert decide(page, approval, "approve", confirm=" postgres ")[0] == 302
    assert Approval.objects.get().state == ApprovalState.APPROVED


def test_a_viewer_sees_the_card_but_no_buttons(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    _, step, approval = a_waiting_call()
    for path in ("/approvals/", step.run.get_absolute_url()):
        html = text_of(client, path)
        assert "Revert api from v2.14.0" in html
        assert 'name="verdict"' not in html
        assert "You may look but not decide" in html
    assert decide(client, approval, "approve")[0] == 403
    assert Vote.objects.count() == 0


def test_who_has_voted_waits_for_the_others(page: Client) -> None:
    _, _, approval = a_waiting_call(quorum=2)
    assert decide(page, approval, "approve")[0] == 302
    html = text_of(page, "/approvals/")
    assert "1 of 2 votes" in html
    assert "You have voted" in html
    assert 'name="verdict"' not in html


def test_decisions_are_kept_with_who_why_and_how_it_ended(page: Client) -> None:
    _, _, approval = a_waiting_call()
    decide(page, approval, "reject", say="not now")
    html = text_of(page, "/approvals/history/")
    assert "Rejected" in html
    assert "olga" in html
    assert "not now" in html
    assert "did not run" in html
    assert "It did not run. The agent was told why." in text_of(page, f"/approvals/{approval.pk}/")


def test_an_empty_queue_says_so(page: Client) -> None:
    assert "Nothing waits for you" in text_of(page, "/approvals/")
    assert "Nothing was decided yet" in text_of(page, "/approvals/history/")


@pytest.mark.parametrize("pk", ["1", "99999999999999999999999"])
def test_an_unknown_approval_is_a_designed_404(page: Client, pk: str) -> None:
    assert "There is no approval" in text_of(page, f"/approvals/{pk}/", 404)
    response = page.post(
        f"/approvals/{pk}/decide/", {"verdict": "approve", "revision": 1, "digest": "0" * 64}
    )
    assert response.status_code == 404


# ------------------------------------------------------- costs and tickets


@pytest.mark.parametrize("query", ["", "?period=24h", "?period=30&source=simulated", "?period=%00&source=x"])
def test_the_cost_page_labels_simulated_money(page: Client, query: str) -> None:
    assert "Nothing was spent" in text_of(page, f"/costs/{query}")
    a_turn(a_lease(a_run("dear question")))
    html = text_of(page, f"/costs/{query}")
    assert '<span class="simulated">simulated</span>' in html
    assert "claude-sonnet-5-5" in html
    assert "dear question" in html


def test_an_unpriced_call_is_never_shown_as_free(page: Client) -> None:
    a_turn(a_lease(a_run()))
    Step.objects.update(cost_usd=None)
    Charge.objects.update(price=None, amount=None)
    Run.objects.update(cost_usd=0, unpriced_calls=1)
    for path in ("/costs/", "/"):
        html = text_of(page, path)
        assert "unpriced" in html
        assert not re.search(r">\$0(\.0+)?<", html)


def test_a_ticket_links_its_run_and_its_evidence(page: Client) -> None:
    lease = a_lease(a_run())
    a_turn(lease, ("get_metrics", "read", {}))
    run = Run.objects.get()
    Ticket.objects.create(
        reference="INC-1001", title="Pool leak", severity=Severity.SEV1, summary="One.\n\nTwo.",
        dedup_key="k", request_id=str(run.request_id), services=["api"], evidence_ids=["ev_01", "ev_77"],
    )  # fmt: skip
    assert "Pool leak" in text_of(page, "/tickets/")
    html = text_of(page, "/tickets/INC-1001/")
    assert f'href="{run.get_absolute_url()}?step=2">ev_01</a>' in html
    assert "ev_77" in html
    assert "ticket INC-1001" in text_of(page, run.get_absolute_url())


def test_no_tickets_and_unknown_tickets_are_said_so(page: Client) -> None:
    assert "No tickets yet" in text_of(page, "/tickets/")
    assert "There is no ticket INC-9" in text_of(page, "/tickets/INC-9/", 404)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("path", "method"),
    [("/", "post"), ("/costs/", "put"), ("/approvals/1/decide/", "get"), ("/runs/new", "delete")],
)
def test_the_wrong_method_is_a_designed_405(page: Client, path: str, method: str) -> None:
    response = getattr(page, method)(path)
    assert response.status_code == 405
    assert response["Allow"]
    assert "Nothing was changed" in response.content.decode()


def test_an_old_form_says_what_to_do(operator: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(operator)
    response = client.post("/runs/new", {"question": "Why?", "agent": "incident"})
    assert response.status_code == 403
    assert Run.objects.count() == 0


def test_the_page_for_an_old_form_is_in_words(rf: RequestFactory, operator: User) -> None:
    request = rf.post("/runs/new")
    request.user = operator
    response = errors.csrf_failure(request, reason="CSRF token missing")
    assert response.status_code == 403
    html = response.content.decode()
    assert "The form has expired" in html
    assert "CSRF" not in html


def test_a_body_that_is_too_large_is_said_to_be_so(page: Client, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    response = page.post("/runs/new", {"question": "x" * 5000})
    assert response.status_code == 413
    assert "Too large" in response.content.decode()


def test_a_refusal_shows_its_sentence(rf: RequestFactory, operator: User) -> None:
    request = rf.get("/")
    request.user = operator
    response = errors.permission_denied(request, PermissionDenied("Not this one."))
    assert response.status_code == 403
    assert "Not this one." in response.content.decode()


def test_a_broken_page_needs_nothing_to_say_so(rf: RequestFactory) -> None:
    response = errors.server_error(rf.get("/"))
    assert response.status_code == 500
    assert "Something broke on our side" in response.content.decode()


def test_pages_allow_no_inline_script_or_style(page: Client) -> None:
    _, step, _ = a_waiting_call()
    for path in ("/", "/runs/new", step.run.get_absolute_url(), "/approvals/", "/costs/", "/nope"):
        response = page.get(path)
        assert "script-src 'self'" in response["Content-Security-Policy"]
        html = response.content.decode()
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script>", html), path
        assert html.count("<h1") <= 1, path


# -------------------------------------------------------------- controls


def test_a_paused_run_says_why_and_is_resumed_by_whoever_may_start_runs(
    page: Client, viewer: User, client: Client
) -> None:
    run = a_run()
    actions.pause(a_lease(run), reason="billing", explanation="Pay the bill, then resume.")
    html = text_of(page, run.get_absolute_url())
    assert "Pay the bill, then resume." in html and ">Resume</button>" in html
    address = run.get_absolute_url() + "resume"
    assert page.get(address).status_code == 405
    client.force_login(viewer)
    assert b"may look but not start" in client.post(address, follow=True).content
    assert Run.objects.get().status == RunStatus.PAUSED
    client.force_login(User.objects.get(username="olga"))
    assert b"goes on as soon as" in client.post(address, follow=True).content
    assert Run.objects.get().status == RunStatus.QUEUED
    assert b"Only a paused run can be resumed" in client.post(address, follow=True).content


def test_a_database_that_does_not_answer_is_said_to_be_busy(
    page: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(**_: object) -> Run:
        raise OperationalError("database is locked")

    monkeypatch.setattr("runs.views.runs.start_run", locked)
    form = {"question": "Why?", "agent": "incident", "request_id": str(uuid.uuid4())}
    response = page.post("/runs/new", form)
    assert response.status_code == 503 and b"send it again" in response.content
    assert response["Retry-After"] == "5"


def test_an_approval_that_was_not_used_in_time_is_not_called_undecided(page: Client) -> None:
    _, step, approval = a_waiting_call()
    olga = User.objects.get(username="olga")
    actions.decide(approval_id=approval.pk, voter=olga, verdict="approve", revision=1, digest=approval.digest)
    Approval.objects.update(execute_by=timezone.now() - timedelta(seconds=1))
    run = Run.objects.get()
    assert actions.start_call(a_lease(run), step.seq, tool_version=step.tool_version) is None
    assert "approval.expired" in run.events.values_list("kind", flat=True)
    assert "approved, but not started in time" in text_of(page, f"/approvals/{approval.pk}/")
    assert "not started in time" in text_of(page, run.get_absolute_url())
