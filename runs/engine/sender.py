"""Sends what is in the outbox: a thread beside the heart of each worker."""

from __future__ import annotations

import logging
import smtplib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from django.conf import settings
from django.core.mail import EmailMessage, InvalidMailer, MailerDoesNotExist
from django.db import connections
from django.utils import timezone

from runs import actions, messages, outgoing, pool
from runs.actions import Outcome
from runs.models import ChannelKind, NotificationChannel, NotificationDelivery

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
AT_ONCE = 4  # deliveries under way in this process, at most one per channel
MAIL_STEPS = 12  # a mail server may take the time of an attempt for each step of the conversation
FORGET_EVERY = timedelta(hours=1)
GONE = 410


class Sender:
    """Sends due messages in threads of its own while it is open. What it had begun at the end, it ends."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._look = threading.Event()
        self._lock = threading.Lock()
        self._busy: dict[int, int | None] = {}  # deliveries under way here, and their channels
        self._thread = threading.Thread(target=self._send_on, name="sender", daemon=True)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._look.set()
        self._thread.join()

    def _send_on(self) -> None:
        forget_at = timezone.now()
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="send") as threads:
            while not self._stop.is_set():
                self._look.clear()
                try:
                    self._begin(threads)
                    if timezone.now() >= forget_at:
                        forget_at = timezone.now() + FORGET_EVERY
                        actions.forget_deliveries(timezone.now())
                except Exception as error:  # whatever it is, the next look may go well
                    logger.warning("messages could not be sent, trying again: %s", error)
                    connections.close_all()
                    self._stop.wait(LOOK_SECONDS)
                pool.give_back()
                self._look.wait(LOOK_SECONDS)
        connections.close_all()

    def _begin(self, threads: ThreadPoolExecutor) -> None:
        with self._lock:
            busy = dict(self._busy)
        free = AT_ONCE - len(busy)
        if free <= 0:
            return
        channels = {channel for channel in busy.values() if channel is not None}
        for pk in actions.due_deliveries(timezone.now(), free, busy_channels=channels):
            channel = NotificationDelivery.objects.values_list("channel_id", flat=True).filter(pk=pk).first()
            with self._lock:
                self._busy[pk] = channel
            threads.submit(self._send, pk)

    def _send(self, pk: int) -> None:
        try:
            deliver(pk)
        except Exception as error:  # its lease ends, then it is tried again
            logger.warning("a message could not be sent, trying again later: %s", error)
        finally:
            connections.close_all()
            with self._lock:
                del self._busy[pk]
            self._look.set()


def deliver(pk: int) -> bool:
    """Claim this message, send it, record what came of it; False when there was nothing to send.

    No transaction is open while it is on its way.
    """
    channel = NotificationChannel.objects.filter(deliveries=pk).first()
    steps = 1 if channel is not None and channel.is_webhook else MAIL_STEPS
    seconds = settings.AGENTOPS_NOTIFY_SECONDS
    delivery = actions.claim_delivery(pk, lease_seconds=steps * seconds + settings.AGENTOPS_LEASE_SECONDS)
    if delivery is None:
        return False
    actions.record_delivery(delivery, attempt(delivery, seconds))
    return True


def attempt(delivery: NotificationDelivery, seconds: float) -> Outcome:
    """Send a claimed message once, without a word to the database. Never raises."""
    channel = delivery.channel
    try:
        if channel is not None and channel.is_webhook:
            return _post(channel, delivery, seconds)
        return _mail(delivery.recipients if channel is None else channel.recipients, delivery)
    except outgoing.BadAddress as error:
        return Outcome(str(error), final=True)
    except outgoing.Unreachable as error:
        return Outcome(str(error))
    except Exception:
        logger.exception("message %s could not be sent", delivery.message_id)
        return Outcome("It could not be sent because of an error of ours; it is in the worker's log.")


def _post(channel: NotificationChannel, delivery: NotificationDelivery, seconds: float) -> Outcome:
    make = messages.slack_body if channel.kind == ChannelKind.SLACK else messages.json_body
    body = make(delivery.notice, delivery.said, settings.AGENTOPS_URL)
    moment = str(int(time.time()))
    headers = {
        "content-type": "application/json",
        "user-agent": f"agentops/{settings.VERSION}",
        "idempotency-key": delivery.message_id,
        "webhook-id": delivery.message_id,
        "webhook-timestamp": moment,
        "webhook-signature": outgoing.signature(channel.secret, delivery.message_id, moment, body),
    }
    answer = outgoing.post(
        channel.url, body, headers, seconds=seconds, private=settings.AGENTOPS_WEBHOOK_PRIVATE
    )
    return _judged(answer)


def _judged(answer: outgoing.Answer) -> Outcome:
    status = answer.status
    if 200 <= status < 300:
        return Outcome(status=status)
    if 300 <= status < 400:
        sentence = f"It sends us elsewhere ({status}). Redirects are not followed: enter the final address."
        return Outcome(sentence, status, final=True)
    if status == GONE:
        return Outcome(
            "It is gone for good (410). Remove the channel or enter another address.", status, True
        )
    if status < 500 and status not in {408, 425, 429}:
        return Outcome(f"It refused the message ({status}). Check the address.", status)
    return Outcome(f"It failed ({status}).", status, wait_seconds=answer.wait_seconds)


def _mail(recipients: str, delivery: NotificationDelivery) -> Outcome:
    subject, text = messages.mail(delivery.notice, delivery.said, settings.AGENTOPS_URL)
    message = EmailMessage(
        subject,
        text,
        to=recipients.split(", "),
        headers={
            "Message-ID": f"<{delivery.message_id}@agentops>",  # the same for each attempt
            "Auto-Submitted": "auto-generated",
        },
    )
    try:
        message.send(using="default")
    except (MailerDoesNotExist, InvalidMailer):
        return Outcome(
            "E-mail is not set up. Set AGENTOPS_MAIL for the workers, then send again.", final=True
        )
    except smtplib.SMTPRecipientsRefused:
        return Outcome("The mail server refused each recipient. Check the addresses.")
    except smtplib.SMTPAuthenticationError:
        return Outcome("The mail server does not accept our user name and password. Check AGENTOPS_MAIL.")
    except smtplib.SMTPResponseException as error:
        return Outcome(f"The mail server did not take it ({error.smtp_code}).")
    except (smtplib.SMTPException, OSError):
        return Outcome("The mail server cannot be reached, or broke off. Check AGENTOPS_MAIL.")
    return Outcome()
