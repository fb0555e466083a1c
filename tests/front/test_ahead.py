"""Rules run while other targets are still analysed, and say the same."""

from __future__ import annotations

import sys
import threading

import pytest

from initlint import engine
from initlint.ahead import Ahead
from initlint.config import Config
from initlint.engine import Analysis
from initlint.facts import ModelFacts


def analysis(name: str) -> Analysis:
    return Analysis(name, (ModelFacts(name, name, "m.py"),))


def test_a_submitted_target_is_judged_before_it_is_asked_for() -> None:
    judged, seen = threading.Event(), []

    def judge(given: Analysis) -> list[engine.Judged]:
        seen.append((given.target, threading.current_thread() is threading.main_thread()))
        judged.set()
        return []

    early, late = analysis("early"), analysis("late")
    with Ahead(judge) as ahead:
        ahead.submit(early)
        assert judged.wait(10)
        assert seen == [("early", False)]
        assert [ahead(early), ahead(late)] == [[], []]
    assert seen == [("early", False), ("late", True)]


def test_what_a_judge_raises_comes_out_where_the_result_is_asked_for() -> None:
    def judge(given: Analysis) -> list[engine.Judged]:
        raise KeyError(given.target)

    one = analysis("one")
    with Ahead(judge) as ahead:
        ahead.submit(one)
        with pytest.raises(KeyError, match="one"):
            ahead(one)


def test_a_run_judged_ahead_is_the_run_judged_afterwards() -> None:
    results = [analysis(name) for name in ("c", "a", "b")]
    with Ahead(lambda given: engine.judge_all(given, Config(), [])) as ahead:
        for early in results[:2]:
            ahead.submit(early)
        run = engine.run(results, Config(), [], judging=ahead)
    assert run == engine.run(results, Config(), [])
    assert [model.facts.name for model in run.models] == ["a", "b", "c"]


def test_a_thread_that_runs_rules_gives_way_soon_and_only_as_long_as_it_is_there() -> None:
    usual = sys.getswitchinterval()
    one = analysis("one")
    with Ahead(lambda _: []) as ahead:
        ahead.submit(one)
        assert sys.getswitchinterval() < usual
        assert ahead(one) == []
    assert sys.getswitchinterval() == usual
