"""Layered layout from top to bottom (Sugiyama, Tagawa and Toda 1981), of boxes that may lie in frames.

1. layers: longest path, then each box moves down towards what it feeds;
2. an arrow over several layers is led through by a way point in each of them;
3. order within layers: barycentres, down and up, the best of all rounds is kept;
4. horizontal places: for each layer the least squares solution under the distances (isotonic regression), down and up.

A frame is laid out by itself and then is one large box in what surrounds it. An arrow into a frame goes to a gate on
its edge, and from there on to the box inside, so it crosses no other box on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Link", "Placed", "Route", "Sheet", "arrange"]

LAYER_GAP = 46.0
LABEL_ZONE = 20.0
"""Height above a box in which arrows go straight down and their labels stand."""
SIDE_GAP = 26.0
WAY_POINT_WIDTH = 10.0
FRAME_MARGIN = 18.0
FRAME_HEAD = 26.0
ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Link:
    """An arrow to lay out; ``label_width`` is room kept beside its end."""

    source: str
    target: str
    label_width: float = 0.0


@dataclass(frozen=True, slots=True)
class Placed:
    """A rectangle: left, top, width, height."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Route:
    """Points of an arrow, and how it gets from each to the next.

    "line" is straight, "curve" leaves and arrives vertically; "under" and "over" turn round below or above two points
    of equal height.
    """

    points: tuple[tuple[float, float], ...]
    bends: tuple[str, ...]


@dataclass(slots=True)
class Sheet:
    """A finished layout; the routes are those of the links, in their order."""

    width: float
    height: float
    boxes: dict[str, Placed]
    frames: dict[str, Placed]
    routes: list[Route]


@dataclass(slots=True)
class _Item:
    """Something with a place in a layer: a box, a frame, a way point, or a gate of the frame that is laid out."""

    key: str
    width: float
    height: float
    kind: str
    layer: int = 0
    x: float = 0.0
    top: float = 0.0


@dataclass(slots=True)
class _Joint:
    """An arrow within one frame: from item to item, with the offsets from their middles where it is fixed to them."""

    link: int
    source: str
    target: str
    label_width: float
    gate_source: str | None = None
    gate_target: str | None = None
    way: list[str] = field(default_factory=list)

    def path(self, items: Mapping[str, _Item]) -> list[str]:
        """Items that it goes through from top to bottom, one a layer."""
        if items[self.source].layer < items[self.target].layer:
            return [self.source, *self.way, self.target]
        return self.way[::-1]


@dataclass(slots=True)
class _Block:
    """The inside of one frame, laid out around its own origin."""

    width: float
    height: float
    items: dict[str, _Item]
    joints: list[_Joint]
    ends: dict[tuple[int, str], float]
    """Fixed ends of links: (link, "in" or "out" + item) to x."""
    bands: list[tuple[float, float]]
    joint_of: dict[int, _Joint] = field(init=False)

    def __post_init__(self) -> None:
        self.joint_of = {joint.link: joint for joint in self.joints}


def arrange(
    sizes: Mapping[str, tuple[float, float]],
    links: Sequence[Link],
    *,
    frame_of: Mapping[str, str | None] | None = None,
    parents: Mapping[str, str | None] | None = None,
    frame_label_widths: Mapping[str, float] | None = None,
) -> Sheet:
    """Place boxes of the given sizes. ``frame_of`` names the frame of a box, ``parents`` the frame around a frame."""
    planner = _Planner(sizes, links, frame_of or {}, parents or {}, frame_label_widths or {})
    return planner.sheet()


class _Planner:
    def __init__(
        self,
        sizes: Mapping[str, tuple[float, float]],
        links: Sequence[Link],
        frame_of: Mapping[str, str | None],
        parents: Mapping[str, str | None],
        frame_label_widths: Mapping[str, float],
    ) -> None:
        self.sizes, self.links, self.parents = sizes, links, parents
        self.frame_label_widths = frame_label_widths
        # innermost first: the frames around a box
        self.around = {name: self._chain(frame_of.get(name)) for name in sizes}
        self.blocks: dict[str | None, _Block] = {}

    def _chain(self, frame: str | None) -> list[str | None]:
        chain: list[str | None] = []
        while frame is not None:
            chain.append(frame)
            frame = self.parents.get(frame)
        return [*chain, None]

    def sheet(self) -> Sheet:
        depth = {frame: len(self._chain(frame)) for frame in self.parents}
        for inner in sorted(self.parents, key=lambda name: -depth[name]):
            self.blocks[inner] = self._lay_out(inner)
        top = self.blocks[None] = self._lay_out(None)
        boxes: dict[str, Placed] = {}
        frames: dict[str, Placed] = {}
        origins: dict[str | None, tuple[float, float]] = {None: (0.0, 0.0)}
        outside_in: list[str | None] = [None, *sorted(self.parents, key=lambda name: depth[name])]
        for frame in outside_in:
            left, up = origins[frame]
            for item in self.blocks[frame].items.values():
                if item.kind == "box":
                    boxes[item.key] = Placed(left + item.x - item.width / 2, up + item.top, item.width, item.height)
                elif item.kind == "frame":
                    name = item.key.removeprefix("frame ")
                    place = Placed(left + item.x - item.width / 2, up + item.top, item.width, item.height)
                    frames[name] = place
                    origins[name] = (place.x, place.y)
        routes = [self._route(index, origins) for index in range(len(self.links))]
        return Sheet(top.width, top.height, boxes, frames, routes)

    # One frame -----------------------------------------------------------------------------------------------------

    def _lay_out(self, frame: str | None) -> _Block:
        items: dict[str, _Item] = {}
        for name, (width, height) in self.sizes.items():
            if self.around[name][0] == frame:
                items[name] = _Item(name, width, height, "box")
        for inner, parent in self.parents.items():
            if parent == frame and inner in self.blocks:
                block = self.blocks[inner]
                items[f"frame {inner}"] = _Item(f"frame {inner}", block.width, block.height, "frame")
        joints = self._joints(frame, items)
        self._widen(items, joints)
        gates_in = {joint.gate_source for joint in joints if joint.gate_source}
        gates_out = {joint.gate_target for joint in joints if joint.gate_target}
        forward = _without_cycles(items, [(joint.source, joint.target) for joint in joints])
        _assign_layers(items, forward, gates_in, gates_out)
        layers = self._layers(items, joints)
        neighbours = _neighbours(joints, items)
        _reduce_crossings(layers, neighbours)
        # what goes up has nothing above or below to hold it near its ends
        pulls = {
            key: [joint.source, joint.target]
            for joint in joints
            if items[joint.source].layer > items[joint.target].layer
            for key in joint.way
        }
        _place_across(layers, items, neighbours, pulls)
        block = self._dimensions(frame, items, joints, layers)
        self._fix_ends(block, layers)
        return block

    def _joints(self, frame: str | None, items: dict[str, _Item]) -> list[_Joint]:
        """Find the parts of all links that lie in this frame; gates are made where one leaves it."""
        joints = []
        for index, link in enumerate(self.links):
            chains = self.around[link.source], self.around[link.target]
            inside = [frame in chain for chain in chains]
            if not any(inside):
                continue
            if all(inside):
                if chains[0][0] != frame and self._member(link.source, frame) == self._member(link.target, frame):
                    continue  # all of it lies deeper
                source, target = self._member(link.source, frame), self._member(link.target, frame)
                joints.append(_Joint(index, source, target, link.label_width))
            elif inside[1]:
                gate = f"gate in {index}"
                items[gate] = _Item(gate, WAY_POINT_WIDTH, 0.0, "gate")
                joints.append(_Joint(index, gate, self._member(link.target, frame), link.label_width, gate_source=gate))
            else:
                gate = f"gate out {index}"
                items[gate] = _Item(gate, WAY_POINT_WIDTH, 0.0, "gate")
                joints.append(_Joint(index, self._member(link.source, frame), gate, 0.0, gate_target=gate))
        return joints

    def _member(self, name: str, frame: str | None) -> str:
        """Return the item that stands for a box in ``frame``: itself, or the frame right below that holds it."""
        chain = self.around[name]
        place = chain.index(frame)
        return name if place == 0 else f"frame {chain[place - 1]}"

    def _widen(self, items: dict[str, _Item], joints: list[_Joint]) -> None:
        """Room for the labels of everything that arrives at a box."""
        room: dict[str, list[float]] = {}
        for joint in joints:
            if items[joint.target].kind == "box":
                room.setdefault(joint.target, []).append(joint.label_width)
        for name, labels in room.items():
            # a single arrow keeps the middle, so its label has only half of the box
            wanted = (
                2 * labels[0] + 24.0 if len(labels) == 1 else sum(max(label + 16.0, 14.0) for label in labels) + 12.0
            )
            items[name].width = max(items[name].width, wanted)

    def _layers(self, items: dict[str, _Item], joints: list[_Joint]) -> list[list[str]]:
        """Items by layer in a first order, with way points for what passes through."""
        for number, joint in enumerate(joints):
            first, last = items[joint.source].layer, items[joint.target].layer
            # an arrow that has to go up passes beside its own two ends as well
            passed = range(first + 1, last) if first < last else range(first, last - 1, -1)
            for layer in passed:
                key = f"way {number} {layer}"
                items[key] = _Item(key, WAY_POINT_WIDTH, 0.0, "way", layer)
                joint.way.append(key)
        count = 1 + max((item.layer for item in items.values()), default=0)
        layers: list[list[str]] = [[] for _ in range(count)]
        # depth first from the sources keeps what belongs together side by side before any sweep
        following: dict[str, list[str]] = {}
        for joint in joints:
            path = joint.path(items)
            for one, other in pairwise(path):
                following.setdefault(one, []).append(other)
        seen: set[str] = set()
        for root in sorted(items, key=lambda key: items[key].layer):
            stack = [root]
            while stack:
                key = stack.pop()
                if key not in seen:
                    seen.add(key)
                    layers[items[key].layer].append(key)
                    stack += reversed(following.get(key, ()))
        return layers

    def _dimensions(
        self, frame: str | None, items: dict[str, _Item], joints: list[_Joint], layers: list[list[str]]
    ) -> _Block:
        margin = FRAME_MARGIN
        head = FRAME_HEAD if frame is not None else 0.0
        left = min((item.x - item.width / 2 for item in items.values()), default=0.0)
        right = max((item.x + item.width / 2 for item in items.values()), default=0.0)
        if frame is not None:
            wanted = self.frame_label_widths.get(frame, 0.0) + 8
            right = max(right, left + wanted)
        for item in items.values():
            item.x += margin - left
        upward = [joint for joint in joints if items[joint.source].layer > items[joint.target].layer]
        labelled_layers = {
            items[joint.target].layer for joint in joints if joint.label_width > 0 and items[joint.target].kind == "box"
        }
        bands = []
        y = head + (0.0 if frame is not None else margin)
        for number, layer in enumerate(layers):
            labelled = number in labelled_layers
            if number or labelled or frame is not None:
                y += LABEL_ZONE if number == 0 else LAYER_GAP + LABEL_ZONE
            if number == 0 and any(items[joint.target].layer == 0 for joint in upward):
                y += LAYER_GAP
            height = max((items[key].height for key in layer), default=0.0)
            only_gates = all(items[key].kind == "gate" for key in layer)
            if only_gates and number == 0:
                # the gates on top lie on the edge of the frame, so their layer takes no room of its own
                y = head
            for key in layer:
                item = items[key]
                item.top = y
            bands.append((y, y + height))
            y += height
        if any(items[joint.source].layer == len(layers) - 1 for joint in upward):
            y += LAYER_GAP
        last_gates = layers and all(items[key].kind == "gate" for key in layers[-1]) and len(layers) > 1
        height = y + (0.0 if last_gates else margin)
        return _Block(right - left + 2 * margin, height, items, joints, {}, bands)

    def _fix_ends(self, block: _Block, layers: list[list[str]]) -> None:
        """Fix where arrows meet their boxes: side by side in the order from which they come."""
        items = block.items
        arriving: dict[str, list[_Joint]] = {}
        leaving: dict[str, list[_Joint]] = {}
        for joint in block.joints:
            arriving.setdefault(joint.target, []).append(joint)
            leaving.setdefault(joint.source, []).append(joint)
        for key, joints in arriving.items():
            item = items[key]
            joints.sort(key=lambda joint: (items[joint.way[-1] if joint.way else joint.source].x, joint.link))
            if item.kind == "box":
                widths = [max(joint.label_width + 16.0, 14.0) for joint in joints]
                labelled = any(joint.label_width for joint in joints)
                x = item.x - sum(widths) / 2
                for joint, width in zip(joints, widths, strict=True):
                    # the label stands right of its arrow; alone, the arrow keeps the middle of the box
                    offset = 7.0 if labelled and len(joints) > 1 else width / 2
                    block.ends[joint.link, f"in {key}"] = x + offset
                    x += width
            elif item.kind == "frame":
                inner = self.blocks[key.removeprefix("frame ")]
                for joint in joints:
                    gate = inner.items[f"gate in {joint.link}"]
                    block.ends[joint.link, f"in {key}"] = item.x - item.width / 2 + gate.x
            else:
                block.ends[joints[0].link, f"in {key}"] = item.x
        for key, joints in leaving.items():
            item = items[key]
            if item.kind == "frame":
                inner = self.blocks[key.removeprefix("frame ")]
                for joint in joints:
                    gate = inner.items[f"gate out {joint.link}"]
                    block.ends[joint.link, f"out {key}"] = item.x - item.width / 2 + gate.x
            else:
                joints.sort(key=lambda joint: (items[joint.way[0] if joint.way else joint.target].x, joint.link))
                spread = min(16.0, (item.width - 24.0) / max(len(joints), 1))
                for place, joint in enumerate(joints):
                    offset = (place - (len(joints) - 1) / 2) * spread if item.kind == "box" else 0.0
                    block.ends[joint.link, f"out {key}"] = item.x + offset

    # Arrows --------------------------------------------------------------------------------------------------------

    def _route(self, index: int, origins: Mapping[str | None, tuple[float, float]]) -> Route:
        """Return the parts of a link in all frames that it goes through, put together from its source to its target."""
        link = self.links[index]
        source_chain, target_chain = self.around[link.source], self.around[link.target]
        common = next(frame for frame in source_chain if frame in target_chain)
        frames = [
            *source_chain[: source_chain.index(common)],
            common,
            *reversed(target_chain[: target_chain.index(common)]),
        ]
        points: list[tuple[float, float]] = []
        bends: list[str] = []
        for frame in frames:
            block = self.blocks[frame]
            joint = block.joint_of.get(index)
            if joint is None:
                continue
            left, up = origins[frame]
            part, part_bends = _path(block, joint)
            moved = [(left + x, up + y) for x, y in part]
            if points:
                bends.append("line")
            points += moved
            bends += part_bends
        return Route(tuple(points), tuple(bends))


def _path(block: _Block, joint: _Joint) -> tuple[list[tuple[float, float]], list[str]]:
    items, bands = block.items, block.bands
    source, target = items[joint.source], items[joint.target]
    upward = source.layer > target.layer
    start_x = block.ends[joint.link, f"out {joint.source}"]
    end_x = block.ends[joint.link, f"in {joint.target}"]
    start = (start_x, source.top + source.height)
    points = [start]
    bends: list[str] = []

    def go(x: float, y: float, bend: str = "curve") -> None:
        level, upright = abs(points[-1][1] - y) < 0.01, abs(points[-1][0] - x) < 0.01
        if not (level and upright):
            points.append((x, y))
            bends.append("line" if upright else bend)

    go(start_x, bands[source.layer][1])
    top = bands[target.layer][0]
    if upward:
        for key in joint.way:
            item = items[key]
            upper, lower = bands[item.layer]
            go(item.x, lower, "under" if item.layer == source.layer else "curve")
            go(item.x, upper - LABEL_ZONE)
        go(end_x, top - LABEL_ZONE, "over")
    else:
        for key in joint.way:
            item = items[key]
            upper, lower = bands[item.layer]
            go(item.x, upper - LABEL_ZONE)
            go(item.x, lower)
        go(end_x, top if target.kind == "gate" else top - LABEL_ZONE)
    go(end_x, target.top)
    return points, bends


def _without_cycles(items: Iterable[str], arrows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the arrows that point forward; frames as single boxes may form cycles where the nodes inside form none."""
    following: dict[str, list[str]] = {}
    for source, target in arrows:
        if source != target:
            following.setdefault(source, []).append(target)
    back: set[tuple[str, str]] = set()
    state: dict[str, int] = {}
    for root in items:
        if root in state:
            continue
        state[root] = 1
        stack = [(root, iter(following.get(root, ())))]
        while stack:
            key, rest = stack[-1]
            following_key = next(rest, None)
            if following_key is None:
                state[key] = 2
                stack.pop()
            elif following_key not in state:
                state[following_key] = 1
                stack.append((following_key, iter(following.get(following_key, ()))))
            elif state[following_key] == 1:
                back.add((key, following_key))
    return [arrow for arrow in arrows if arrow not in back and arrow[0] != arrow[1]]


def _assign_layers(
    items: dict[str, _Item], arrows: list[tuple[str, str]], gates_in: set[str], gates_out: set[str]
) -> None:
    following: dict[str, list[str]] = {key: [] for key in items}
    waiting = dict.fromkeys(items, 0)
    for source, target in arrows:
        following[source].append(target)
        waiting[target] += 1
    free = [key for key in items if waiting[key] == 0]
    order = []
    lowest = 1 if gates_in else 0
    for key in free:  # grows while it is read
        order.append(key)
        items[key].layer = max(items[key].layer, 0 if key in gates_in else lowest)
        for target in following[key]:
            items[target].layer = max(items[target].layer, items[key].layer + 1)
            waiting[target] -= 1
            if waiting[target] == 0:
                free.append(target)
    bottom = 1 + max((items[key].layer for key in items if key not in gates_out), default=0)
    for key in gates_out:
        items[key].layer = bottom
    # what only feeds a box further down, like an input, moves next to it
    arriving: dict[str, int] = dict.fromkeys(items, 0)
    for _, target in arrows:
        arriving[target] += 1
    for key in reversed(order):
        if following[key] and not arriving[key] and key not in gates_in:
            items[key].layer = min(items[target].layer for target in following[key]) - 1


def _neighbours(joints: Iterable[_Joint], items: Mapping[str, _Item]) -> dict[str, tuple[list[str], list[str]]]:
    """For each item what it is joined to above and below."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for joint in joints:
        path = joint.path(items)
        for upper, lower in pairwise(path):
            found.setdefault(upper, ([], []))[1].append(lower)
            found.setdefault(lower, ([], []))[0].append(upper)
    return found


def _reduce_crossings(layers: list[list[str]], neighbours: Mapping[str, tuple[list[str], list[str]]]) -> None:
    best = [list(layer) for layer in layers]
    fewest = _crossings(layers, neighbours)
    for round_number in range(ROUNDS):
        if fewest == 0:
            break
        down = round_number % 2 == 0
        numbers = range(1, len(layers)) if down else range(len(layers) - 2, -1, -1)
        for number in numbers:
            beside = layers[number - 1] if down else layers[number + 1]
            places = {key: place for place, key in enumerate(beside)}
            own = {key: place for place, key in enumerate(layers[number])}

            def barycentre(
                key: str, places: dict[str, int] = places, own: dict[str, int] = own, side: int = 0 if down else 1
            ) -> float:
                joined = [places[other] for other in neighbours.get(key, ([], []))[side] if other in places]
                return sum(joined) / len(joined) if joined else float(own[key])

            layers[number].sort(key=barycentre)
        found = _crossings(layers, neighbours)
        if found < fewest:
            fewest, best = found, [list(layer) for layer in layers]
    layers[:] = best


def _crossings(layers: list[list[str]], neighbours: Mapping[str, tuple[list[str], list[str]]]) -> int:
    """Count the arrows that cross, layer by layer with a Fenwick tree (Barth, Jünger and Mutzel 2002)."""
    total = 0
    for upper, lower in pairwise(layers):
        places = {key: place for place, key in enumerate(lower)}
        tree = [0] * (len(lower) + 1)
        seen = 0
        for key in upper:
            ends = sorted(places[other] for other in neighbours.get(key, ([], []))[1] if other in places)
            for end in ends:
                at_most = 0
                index = end + 1
                while index:
                    at_most += tree[index]
                    index &= index - 1
                total += seen - at_most
            for end in ends:
                index = end + 1
                while index <= len(lower):
                    tree[index] += 1
                    index += index & -index
                seen += 1
    return total


def _place_across(
    layers: list[list[str]],
    items: dict[str, _Item],
    neighbours: Mapping[str, tuple[list[str], list[str]]],
    pulls: Mapping[str, list[str]],
) -> None:
    for layer in layers:
        x = 0.0
        for key in layer:
            items[key].x = x + items[key].width / 2
            x += items[key].width + SIDE_GAP
        for key in layer:
            items[key].x -= (x - SIDE_GAP) / 2
    for round_number in range(ROUNDS):
        down = round_number % 2 == 0
        for layer in layers if down else reversed(layers):
            wanted, weights = [], []
            for key in layer:
                above, below = neighbours.get(key, ([], []))
                joined = (above if down else below) or above or below
                if round_number >= ROUNDS - 2:
                    joined = [*above, *below]
                joined = [*joined, *pulls.get(key, ())]
                wanted.append(sum(items[other].x for other in joined) / len(joined) if joined else items[key].x)
                weights.append((4.0 if items[key].kind == "way" else 1.0) * max(len(joined), 0.1))
            gaps = [(items[one].width + items[other].width) / 2 + SIDE_GAP for one, other in pairwise(layer)]
            for key, x in zip(layer, _separated(wanted, weights, gaps), strict=True):
                items[key].x = x


def _separated(wanted: Sequence[float], weights: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Find the places nearest to the wanted ones (weighted least squares) with these gaps: isotonic regression."""
    offsets = [0.0]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    groups: list[tuple[float, float, int]] = []  # mean, weight, members
    for target, weight, offset in zip(wanted, weights, offsets, strict=False):
        mean, total, members = target - offset, weight, 1
        while groups and groups[-1][0] > mean:
            before, before_total, before_members = groups.pop()
            mean = (mean * total + before * before_total) / (total + before_total)
            total += before_total
            members += before_members
        groups.append((mean, total, members))
    places: list[float] = []
    for mean, _, members in groups:
        places += [mean] * members
    return [place + offset for place, offset in zip(places, offsets, strict=False)]
