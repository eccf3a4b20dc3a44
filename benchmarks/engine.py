"""Engine overhead: no-op nodes, parse + bind + plan + execute, CPU time a node.

Beside it the floor, in the same run: the same functions called by a plain loop over a topological order that networkx
gives, which is what any engine on such a graph pays at least.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import networkx as nx

import graphflow as gf
from benchmarks.pack import REGISTRY

SIZES = (1_000, 20_000)
REPEATS = 11


def document(shape: str, count: int) -> str:
    """JSON of a chain (each node takes the one before) or a fan (each takes the first), with distinct nodes."""
    nodes: dict[str, Any] = {"n0": {"type": "Start"}}
    for index in range(1, count):
        source = f"n{index - 1}" if shape == "chain" else "n0"
        nodes[f"n{index}"] = {"type": "Step", "tag": index, "value": {"from": source}}
    return json.dumps({"graphflow": 1, "nodes": nodes})


def stages(text: str) -> dict[str, float]:
    """CPU seconds of each stage of one whole journey."""
    gc.collect()
    marks = [time.process_time()]
    workflow = gf.loads(text)
    marks.append(time.process_time())
    graph = gf.bind(workflow, registry=REGISTRY)
    marks.append(time.process_time())
    plan = gf.plan(graph)
    marks.append(time.process_time())
    outcome = gf.execute(plan)
    marks.append(time.process_time())
    assert len(outcome.records) == len(workflow.nodes), "a node did not run"
    names = ("parse", "bind", "plan", "execute")
    return {name: after - before for name, before, after in zip(names, marks, marks[1:], strict=False)}


def known(text: str) -> gf.MemoryCache:
    """A store with all results of a document."""
    store = gf.MemoryCache()
    gf.execute(gf.plan(gf.bind(gf.loads(text), registry=REGISTRY)), cache=store)
    return store


def rerun(text: str, store: gf.MemoryCache) -> tuple[float, float]:
    """CPU seconds of a run again with everything known: the whole journey, and from the bound graph on."""
    gc.collect()
    begun = time.process_time()
    graph = gf.bind(gf.loads(text), registry=REGISTRY)
    bound = time.process_time()
    outcome = gf.execute(gf.plan(graph), cache=store)
    ended = time.process_time()
    assert not any(record.state == "ran" for record in outcome.records), "a node ran again"
    return ended - begun, ended - bound


def plain_loop(text: str) -> float:
    """CPU seconds of the floor: parse the JSON, sort the graph, call the functions."""
    gc.collect()
    begun = time.process_time()
    nodes = json.loads(text)["nodes"]
    digraph: nx.DiGraph[str] = nx.DiGraph()
    digraph.add_nodes_from(nodes)
    digraph.add_edges_from((node["value"]["from"], name) for name, node in nodes.items() if "value" in node)
    functions: dict[str, Callable[..., int]] = {"Start": lambda: 0, "Step": lambda value: value}
    values: dict[str, int] = {}
    for name in nx.topological_sort(digraph):
        node = nodes[name]
        arguments = {"value": values[node["value"]["from"]]} if "value" in node else {}
        values[name] = functions[node["type"]](**arguments)
    return time.process_time() - begun


def main() -> None:
    """Print the table: medians of several journeys."""
    print("Engine overhead, no-op nodes, CPU µs a node (median of", REPEATS, "journeys)")
    print("| graph | nodes | parse | bind | plan | execute | **all** | least | plain loop | all / plain |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    whole: dict[tuple[str, int], float] = {}
    best: dict[tuple[str, int], float] = {}
    texts = {(shape, count): document(shape, count) for count in SIZES for shape in ("chain", "fan")}
    measured: dict[tuple[str, int], list[dict[str, float]]] = {key: [] for key in texts}
    floors: dict[tuple[str, int], list[float]] = {key: [] for key in texts}
    again: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in texts}
    stores = {key: known(text) for key, text in texts.items()}
    for _ in range(REPEATS):  # interleaved, so that a slow moment of the machine falls on all of them
        for key, text in texts.items():
            measured[key].append(stages(text))
            floors[key].append(plain_loop(text))
            again[key].append(rerun(text, stores[key]))
    for (shape, count), rows in measured.items():
        micro = 1e6 / count
        each = [statistics.median(row[name] for row in rows) * micro for name in rows[0]]
        totals = [sum(row.values()) * micro for row in rows]
        floor = statistics.median(floors[shape, count]) * micro
        whole[shape, count], best[shape, count] = statistics.median(totals), min(totals)
        cells = [*(f"{value:.1f}" for value in each), f"**{whole[shape, count]:.1f}**", f"{min(totals):.1f}"]
        print(f"| {shape} | {count} | {' | '.join(cells)} | {floor:.1f} | {whole[shape, count] / floor:.1f} |")
    print()
    print("A run again with everything known, CPU µs a node")
    print("| graph | nodes | parse, bind, plan, execute | least | plan, execute |")
    print("|---|---|---|---|---|")
    for (shape, count), times in again.items():
        journeys, planned = ([each * 1e6 / count for each in column] for column in zip(*times, strict=True))
        median = statistics.median(journeys)
        print(f"| {shape} | {count} | **{median:.1f}** | {min(journeys):.1f} | {statistics.median(planned):.1f} |")
    print()
    for shape in ("chain", "fan"):
        medians, least = (table[shape, SIZES[1]] / table[shape, SIZES[0]] for table in (whole, best))
        print(f"{shape}: {SIZES[1]} nodes cost {least:.2f} x as much a node as {SIZES[0]} (of medians {medians:.2f})")
