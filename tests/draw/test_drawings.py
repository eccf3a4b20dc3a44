from __future__ import annotations

import math
import random
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphflow import Registry, Workflow, bind, load, plan
from graphflow.draw import Arrow, Box, Drawing, Frame, drawing_of_graph, drawing_of_plan, mermaid, svg
from graphflow.draw.drawing import TONES
from graphflow.draw.layout import Link, Placed, Route, Sheet, arrange
from graphflow.draw.svg import text_width
from tests.helpers import engine_pack as pack

WORKFLOWS = sorted((Path(__file__).parents[2] / "workflows").glob("*.json"))
SVG = "{http://www.w3.org/2000/svg}"


def random_drawing(seed: int, boxes: int, frames: int = 0, *, nested_in_order: bool = True) -> Drawing:
    """Any graph; with ``nested_in_order`` a frame holds neighbours, as a called workflow does."""
    numbers = random.Random(seed)
    made: list[Frame] = []
    for index in range(frames):
        parent = numbers.choice([None, *(frame.id for frame in made)])
        made.append(Frame(f"f{index}", f"call {index}", parent))
    drawn = []
    for index in range(boxes):
        place = index * frames // boxes if nested_in_order else numbers.randrange(frames + 1)
        frame = made[place].id if place < frames and (not nested_in_order or index % 3) else None
        lines = tuple(["prompt: " + "m" * numbers.randint(1, 40)] * numbers.randint(0, 4))
        drawn.append(Box(f"b{index}", "node", f"node {index}", "Denoise", lines, numbers.choice(TONES), frame))
    arrows = [
        Arrow(f"b{numbers.randrange(max(0, index - 12), index)}", f"b{index}", numbers.choice(["image", "", "latent"]))
        for index in range(1, boxes)
        for _ in range(numbers.choice([1, 1, 2, 3]))
    ]
    return Drawing(f"random {seed}", tuple(drawn), tuple(arrows), tuple(made))


def sheet_of(drawing: Drawing) -> Sheet:
    return arrange(
        {box.id: (100.0 + 20 * len(box.lines), 40.0 + 15 * len(box.lines)) for box in drawing.boxes},
        [Link(arrow.source, arrow.target, 40.0 if arrow.label else 0.0) for arrow in drawing.arrows],
        frame_of={box.id: box.frame for box in drawing.boxes},
        parents={frame.id: frame.parent for frame in drawing.frames},
    )


def apart(one: Placed, other: Placed) -> bool:
    return (
        one.x + one.width <= other.x
        or other.x + other.width <= one.x
        or one.y + one.height <= other.y
        or other.y + other.height <= one.y
    )


def within(inner: Placed, outer: Placed) -> bool:
    return (
        outer.x <= inner.x
        and outer.y <= inner.y
        and inner.x + inner.width <= outer.x + outer.width
        and inner.y + inner.height <= outer.y + outer.height
    )


def samples(route: Route) -> Iterator[tuple[float, float]]:
    """Points along an arrow, as the SVG draws it."""
    for (x1, y1), (x2, y2), bend in zip(route.points, route.points[1:], route.bends, strict=False):
        first, second = {"under": (30.0, 30.0), "over": (-30.0, -30.0)}.get(bend, ((y2 - y1) / 2, (y1 - y2) / 2))
        for part in range(21):
            t = part / 20
            if bend == "line":
                yield x1 + (x2 - x1) * t, y1 + (y2 - y1) * t
            else:
                a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
                yield a * x1 + b * x1 + c * x2 + d * x2, a * y1 + b * (y1 + first) + c * (y2 + second) + d * y2


CASES = [(1, 1, 0), (2, 2, 0), (3, 30, 0), (4, 60, 0), (5, 20, 2), (6, 40, 5), (7, 200, 0), (8, 200, 8)]


@pytest.mark.parametrize(("seed", "boxes", "frames"), CASES)
def test_boxes_do_not_overlap_and_arrows_cross_none(seed: int, boxes: int, frames: int) -> None:
    drawing = random_drawing(seed, boxes, frames)
    sheet = sheet_of(drawing)
    places = list(sheet.boxes.values())
    whole = Placed(0, 0, sheet.width, sheet.height)
    for index, place in enumerate(places):
        assert within(place, whole)
        assert all(apart(place, other) for other in places[:index])
    for arrow, route in zip(drawing.arrows, sheet.routes, strict=True):
        source, target = sheet.boxes[arrow.source], sheet.boxes[arrow.target]
        assert route.points[0][1] == pytest.approx(source.y + source.height)
        assert route.points[-1][1] == pytest.approx(target.y)
        assert source.x < route.points[0][0] < source.x + source.width
        assert target.x < route.points[-1][0] < target.x + target.width
        for x, y in samples(route):
            assert within(Placed(x, y, 0, 0), whole)
            for key, place in sheet.boxes.items():
                inside = place.x + 1 < x < place.x + place.width - 1 and place.y + 1 < y < place.y + place.height - 1
                assert not inside, (arrow, key)


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_frames_hold_their_own_boxes_and_no_others(seed: int, in_order: bool) -> None:
    drawing = random_drawing(seed, 24, 4, nested_in_order=in_order)
    sheet = sheet_of(drawing)
    parents = {frame.id: frame.parent for frame in drawing.frames}
    for box in drawing.boxes:
        around = set()
        frame = box.frame
        while frame is not None:
            around.add(frame)
            frame = parents[frame]
        for name, place in sheet.frames.items():
            if name in around:
                assert within(sheet.boxes[box.id], place)
            else:
                assert apart(sheet.boxes[box.id], place)


def test_frames_that_feed_each_other_are_drawn_all_the_same() -> None:
    drawing = random_drawing(1, 16, 3, nested_in_order=False)
    sheet = sheet_of(drawing)
    for route in sheet.routes:
        assert len(route.points) == len(route.bends) + 1
        assert all(-40 <= x <= sheet.width + 40 and -40 <= y <= sheet.height + 40 for x, y in samples(route))


@pytest.mark.parametrize(("seed", "boxes", "frames"), CASES)
def test_text_stays_in_its_box(seed: int, boxes: int, frames: int) -> None:
    drawing = random_drawing(seed, boxes, frames)
    root = ElementTree.fromstring(svg(drawing))
    sizes = {"title": (13.0, True), "type": (11.0, False), "line": (11.0, False)}
    checked = 0
    for group in root.iter(f"{SVG}g"):
        rectangle = next((item for item in group.findall(f"{SVG}rect") if "box" in item.get("class", "")), None)
        if rectangle is None:
            continue
        right = float(rectangle.get("x", 0)) + float(rectangle.get("width", 0))
        for text in group.findall(f"{SVG}text"):
            size, bold = sizes[text.get("class", "").split()[0]]
            assert float(text.get("x", 0)) + text_width(text.text or "", size, bold=bold) <= right
            checked += 1
    assert checked >= boxes


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
@pytest.mark.parametrize("expanded", [False, True])
def test_shipped_workflows_can_be_drawn(path: Path, expanded: bool) -> None:
    graph = bind(load(path), checking=True)
    drawing = drawing_of_plan(plan(graph, results=False), graph) if expanded else drawing_of_graph(graph)
    assert drawing.boxes
    ids = {box.id for box in drawing.boxes}
    assert {arrow.source for arrow in drawing.arrows} | {arrow.target for arrow in drawing.arrows} <= ids
    ElementTree.fromstring(svg(drawing))
    assert mermaid(drawing).count("-->") + mermaid(drawing).count("-.->") == len(drawing.arrows)


def test_equal_graphs_give_equal_text() -> None:
    path = WORKFLOWS[0]
    texts = {svg(drawing_of_graph(bind(load(path), checking=True))) for _ in range(3)}
    assert len(texts) == 1


def graph_of(workflow: Workflow, *, expanded: bool = False) -> Drawing:
    graph = bind(workflow, checking=True, registry=Registry(pack.REGISTRY.values()))
    return drawing_of_plan(plan(graph, results=False), graph) if expanded else drawing_of_graph(graph)


def test_boxes_tell_texts_first_then_what_is_set() -> None:
    workflow = Workflow()
    add = workflow.add("add", pack.Add(by=3), left=1)
    workflow.add("join", pack.Join(), left="a  long text\nover two lines that has to be cut", right="!")
    workflow.output("sum", add)
    boxes = {box.title: box for box in graph_of(workflow).boxes}
    assert boxes["add"].lines == ("left: 1", "by: 3")
    assert boxes["join"].lines == ('left: "a long text over two lines that…', 'right: "!"')
    assert (boxes["sum"].shape, boxes["sum"].subtitle) == ("output", "Int")


def test_inputs_are_pills_with_arrows_to_what_they_feed() -> None:
    workflow = Workflow()
    amount = workflow.input("amount", "int", default=2)
    picture = workflow.input("picture", "image")
    workflow.add("add", pack.Add(), left=1, by=amount)
    redraw = workflow.add("redraw", pack.Redraw(), image=picture)
    drawing = graph_of(workflow)
    assert [(box.title, box.subtitle) for box in drawing.boxes if box.shape == "input"] == [
        ("amount", "2"),
        ("picture", ""),
    ]
    assert {(arrow.source, arrow.target, arrow.label) for arrow in drawing.arrows} == {
        ("input:amount", "node:add", "by"),
        ("input:picture", f"node:{redraw.name}", "image"),
    }
    assert "by: " not in "".join(line for box in drawing.boxes for line in box.lines)


def test_inputs_reach_into_called_workflows(tmp_path: Path) -> None:
    inner = Workflow()
    value = inner.input("value", "int")
    inner.output("sum", inner.add("add", pack.Add(), left=value))
    inner.save(tmp_path / "inner.json")
    middle = Workflow()
    value = middle.input("number", "int")
    middle.output("sum", middle.call("deep", "inner", value=value)["sum"])
    middle.save(tmp_path / "middle.json")
    outer = Workflow()
    start = outer.input("start", "int", default=1)
    outer.output("sum", outer.call("call", "middle", number=start)["sum"])
    outer.save(tmp_path / "outer.json")
    drawing = graph_of(load(tmp_path / "outer.json"))
    assert [(frame.id, frame.label, frame.parent) for frame in drawing.frames] == [
        ("call", "call · middle", None),
        ("call/deep", "deep · inner", "call"),
    ]
    assert [(arrow.source, arrow.target) for arrow in drawing.arrows] == [
        ("input:start", "node:call/deep/add"),
        ("node:call/deep/add", "output:sum"),
    ]
    assert next(box for box in drawing.boxes if box.shape == "node").frame == "call/deep"
    assert mermaid(drawing).count("subgraph") == 2


def test_conversions_are_dashed_in_a_plan() -> None:
    workflow = Workflow()
    draw = workflow.add("draw", pack.Draw())
    workflow.add("redraw", pack.Redraw(model="xl-model"), image=draw)
    drawing = graph_of(workflow, expanded=True)
    assert [box.subtitle for box in drawing.boxes if box.shape == "node"] == ["Draw", "Decode", "Encode", "Redraw"]
    assert [arrow.dashed for arrow in drawing.arrows] == [True, True, True, False]
    assert "dashed" in svg(drawing)
    assert "-.->" in mermaid(drawing)


def test_coarse_nodes_are_frames_in_a_plan() -> None:
    workflow = Workflow()
    workflow.add("twice", pack.AddTwice(by=2), value=workflow.add("number", pack.Number(value=1)))
    drawing = graph_of(workflow, expanded=True)
    assert [(frame.id, frame.label) for frame in drawing.frames] == [("twice", "twice · AddTwice")]
    assert [(box.title, box.frame) for box in drawing.boxes if box.shape == "node"] == [
        ("number", None),
        ("add", "twice"),
        ("add-2", "twice"),
    ]


ODD = '<b>&"quoted"</b> `x` | [y] {z} #35; --> end\n%% 日本語 \u202e\x07'


def test_odd_text_is_escaped() -> None:
    box = Box("a", "node", ODD, ODD, (ODD,))
    drawing = Drawing(ODD, (box, Box("b", "output", ODD)), (Arrow("a", "b", ODD),), ())
    root = ElementTree.fromstring(svg(drawing))
    assert any("quoted" in (text.text or "") for text in root.iter(f"{SVG}text"))
    text = mermaid(drawing)
    body = text.split("---\n", 2)[2]
    for line in body.splitlines():
        assert re.fullmatch(r'[^"]*("[^"]*"[^"]*)*', line)
    assert "&" not in body
    assert "`" not in body
    assert (
        len(body.splitlines())
        == len(mermaid(Drawing("t", (Box("a", "node", "x"), Box("b", "output", "x")), (Arrow("a", "b"),))).splitlines())
        - 3
    )


def test_both_colour_schemes_are_in_the_file() -> None:
    text = svg(random_drawing(1, 3))
    assert "prefers-color-scheme:dark" in text
    assert "var(" not in text  # many viewers know no CSS variables


@pytest.mark.parametrize("text", ["", "a", "WWWW", "日本語", "e\u0301"])
def test_widths_grow_with_size(text: str) -> None:
    assert math.isclose(text_width(text, 20), 2 * text_width(text, 10))
