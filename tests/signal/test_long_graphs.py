"""Rules on a long residual stream: none of them recurses along it."""

from __future__ import annotations

from signal_graphs import Graph, parameter

from initlint import engine, packs
from initlint.config import Config
from initlint.facts import Node


def test_no_rule_fails_on_a_stream_of_1500_blocks():
    graph = Graph()
    x = graph.input(32)
    for block in range(1500):
        graph.parameters.append(parameter(f"{block}.table", (4, 32), 1e-4 if block % 2 else 1.0))
        names = {"value": f"{block}.table"}
        table = graph.put(
            Node(len(graph.nodes), "parameter", (), (8, 32), attrs={"second": 1.0, "mean": 0.0}, parameters=names)
        )
        branch = graph.activation(graph.linear(graph.norm(x), 32, 1e-3, name=f"{block}.fc"), "relu")
        x = graph.sum(x, branch if block % 50 else table)
    graph.linear(x, 10, name="head")
    judged = engine.judge(graph.facts(), Config(), packs.load())
    assert [finding.message for finding in judged.findings if finding.code == "IL902"] == []
