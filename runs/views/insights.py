"""How agents and tools do, and what goes wrong: read from the newest runs and calls of a period."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from runs.reading.agent_report import read_agent, read_agents
from runs.reading.failures import read_failures
from runs.reading.periods import PERIODS, find_period
from runs.reading.tool_report import MOST_CALLS, read_tool, read_tools
from runs.views.errors import allow

READ = ("GET", "HEAD")


@allow(*READ)
def agents(request: HttpRequest) -> HttpResponse:
    """All agents, with how their runs ended and what they cost."""
    period = find_period(request.GET.get("period", ""))
    tallies, is_cut = read_agents(period, now=timezone.now())
    context = {"tallies": tallies, "is_cut": is_cut, "period": period, "periods": PERIODS, "tab": "agents"}
    return render(request, "agents/agents.html", context)


@allow(*READ)
def agent(request: HttpRequest, name: str) -> HttpResponse:
    """One agent: its configuration, and how its runs went."""
    page = read_agent(name, find_period(request.GET.get("period", "")), now=timezone.now())
    if page is None:
        raise Http404(f"There is no agent {name[:60]!r} here, and none of that name ran in this period.")
    context = {"page": page, "period": page.period, "periods": PERIODS, "tab": "agents"}
    return render(request, "agents/agent.html", context)


@allow(*READ)
def tools(request: HttpRequest) -> HttpResponse:
    """All tools, with how they are called and how they answer."""
    period = find_period(request.GET.get("period", ""))
    tallies = read_tools(period, now=timezone.now())
    context = {
        "tallies": tallies,
        "most_calls": MOST_CALLS,
        "period": period,
        "periods": PERIODS,
        "tab": "tools",
    }
    return render(request, "agents/tools.html", context)


@allow(*READ)
def tool(request: HttpRequest, name: str) -> HttpResponse:
    """One tool: what the model sees of it, and what a person needs to make it better."""
    page = read_tool(name, find_period(request.GET.get("period", "")), now=timezone.now())
    if page is None:
        raise Http404(
            f"There is no tool {name[:60]!r} here, and none of that name was called in this period."
        )
    context = {"page": page, "period": page.period, "periods": PERIODS, "tab": "tools"}
    return render(request, "agents/tool.html", context)


@allow(*READ)
def errors(request: HttpRequest) -> HttpResponse:
    """What failed, grouped by what it says."""
    tool = request.GET.get("tool", "")[:128].replace("\0", "")
    period = find_period(request.GET.get("period", ""))
    failures = read_failures(period, now=timezone.now(), tool=tool)
    context = {"failures": failures, "tool": tool, "period": period, "periods": PERIODS, "tab": "errors"}
    return render(request, "agents/errors.html", context)
