"""Signing in with a password or a one-time link, and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import Resolver404, resolve, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from runs.actions import use_sign_in_link
from runs.views.errors import allow, error_page


class SignInRequired(LoginRequiredMiddleware):
    """Sends a page to sign in first; refuses what would act, and fragments of a page, with 403."""

    def handle_no_permission(self, request: HttpRequest, view_func: Callable[..., HttpResponseBase]) -> Any:
        """Redirect a page; let htmx move the whole page; answer a form with the sign-in that leads back."""
        if "HX-Request" in request.headers:
            response = error_page(request, 403, sentence=SIGNED_OUT)
            response["HX-Redirect"] = reverse("sign-in")
            return response
        if request.method in {"GET", "HEAD"} and len(request.get_full_path()) > MAX_ADDRESS:
            return redirect("sign-in")
        if request.method in {"GET", "HEAD"}:
            return super().handle_no_permission(request, view_func)
        form = AuthenticationForm(request)
        return _form(request, form, status=403, target=request.get_full_path(), notice=SIGNED_OUT)


SIGNED_OUT = "You are signed out, so nothing was changed. Sign in and send it again."
MAX_ADDRESS = 2_000  # characters of an address to return to; Django redirects to none over 16,384
BACKEND = "django.contrib.auth.backends.ModelBackend"


@sensitive_post_parameters("password")
@never_cache
@login_not_required
@allow("GET", "HEAD", "POST")
def sign_in(request: HttpRequest) -> HttpResponse:
    """User name and password."""
    if request.user.is_authenticated:
        return redirect(_target(request))
    form = AuthenticationForm(request, data=request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        login(request, form.get_user())
        return redirect(_target(request))
    return _form(request, form, status=422 if form.is_bound else 200)


def too_many(request: HttpRequest, response: HttpResponse, credentials: object) -> HttpResponse:
    """What somebody is told who tried too many passwords: nothing is tried before the time is over."""
    return _form(request, AuthenticationForm(request, initial=request.POST.dict()), status=429)


@never_cache
@login_not_required
@allow("GET")
def sign_in_link(request: HttpRequest, token: str) -> HttpResponse:
    """A one-time link: signs in once, then never again. Fetching it ahead does not use it up."""
    if "prefetch" in request.headers.get("Sec-Purpose", request.headers.get("Purpose", "")):
        return HttpResponse(status=204)
    user = use_sign_in_link(token)
    if user is None:
        return render(request, "access/link_used.html", status=410)
    login(request, user, backend=BACKEND)
    return redirect(_target(request))


@never_cache
@login_not_required
@allow("POST")
def sign_out(request: HttpRequest) -> HttpResponse:
    """End this session; its live pages are closed with it."""
    logout(request)
    return redirect("sign-in")


def _form(
    request: HttpRequest, form: AuthenticationForm, *, status: int, target: str = "", notice: str = ""
) -> HttpResponse:
    context = {
        "form": form,
        "notice": notice,
        "next": target or request.GET.get("next", request.POST.get("next", "")),
        "wait_minutes": settings.AXES_COOLOFF_TIME.seconds // 60 if status == 429 else 0,
    }
    return render(request, "access/sign_in.html", context, status=status)


def _target(request: HttpRequest) -> str:
    """The page that was asked for before signing in, when it is one of ours."""
    target = request.POST.get("next") or request.GET.get("next") or ""
    if (
        len(target) <= MAX_ADDRESS
        and target.startswith("/")
        and url_has_allowed_host_and_scheme(target, allowed_hosts=None)
    ):
        return _page_of(target)
    return settings.LOGIN_REDIRECT_URL


def _page_of(target: str) -> str:
    """The address itself, or the page nearest above it when it only takes forms.

    A form that was sent without a session cannot be sent again by going to its address.
    """
    path = urlsplit(target).path
    while path != "/":
        try:
            found = resolve(path)
        except Resolver404:
            found = None
        if found and "GET" in getattr(found.func, "methods", ("GET",)):
            return target if path == urlsplit(target).path else path
        path = f"{path.rstrip('/').rpartition('/')[0]}/"
    return "/"
