"""Quest: a house in words. Something has to be fetched from one place and put into another.

The house stays the same, the quests differ: which thing, where it lies, where it belongs, where one
starts. A reward of 1 is paid when the thing lies where it belongs, nothing before. What is on offer
is everything that can be said about what is in sight; much of it is refused or changes nothing, and
eating the thing that is wanted ends the quest.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from surpass.errors import InputError
from surpass.policies.commands import TextLayout
from surpass.tasks.text import TextStep, TextTask

__all__ = ["Quest", "text_quest"]

ROOMS = ("kitchen", "hall", "study", "garden", "cellar", "bedroom", "attic", "garage", "bathroom",
         "workshop")  # fmt: skip
FURNITURE = (
    ("fridge", "cupboard"), ("cabinet", "basket"), ("desk", "bookcase"), ("shed", "crate"),
    ("barrel", "chest"), ("wardrobe", "nightstand"), ("trunk", "suitcase"), ("toolbox", "locker"),
    ("hamper", "vanity"), ("bin", "drawer"),
)  # fmt: skip
THINGS = ("apple", "lamp", "rope", "cup", "book", "coin", "shell", "candle", "radio", "plum",
          "brush", "kite")  # fmt: skip


@dataclass
class _World:
    """A quest under way: where every thing is (a piece of furniture, or "" in the hand), what is
    open, and where one stands."""

    wanted: str
    target: str
    room: str
    things: dict[str, str]
    opened: set[str] = field(default_factory=set)


class Quest:
    """The house as a text environment; a task's number is the seed of its quest.

    Args:
        rooms: of the house, 2 to 10. things: that lie about, 1 to 12. house: the seed of how the
            rooms are connected: a random tree, and a corridor more. limit: turns after which a
            quest is lost.
    """

    refusals = ("you can't",)

    def __init__(self, rooms: int = 8, things: int = 6, house: int = 0, limit: int = 20) -> None:
        if not (2 <= rooms <= len(ROOMS) and 1 <= things <= len(THINGS)):
            raise InputError(f"a house has 2 to {len(ROOMS)} rooms and 1 to {len(THINGS)} things")
        self.rooms, self.limit, self.count = ROOMS[:rooms], limit, things
        self.room_of = {f: r for r, held in zip(ROOMS, FURNITURE, strict=True) for f in held
                        if r in self.rooms}  # fmt: skip
        self.exits: dict[str, tuple[str, ...]] = _corridors(self.rooms, house)
        self.goal, self.turns, self.world = "", 0, None

    def reset(self, task: int) -> str:
        """A new quest."""
        random = np.random.default_rng((task, 7))
        furniture = list(self.room_of)
        wanted, *others = random.permutation(THINGS)[: self.count].tolist()
        source, target = (furniture[i] for i in random.permutation(len(furniture))[:2])
        places = {thing: str(random.choice(furniture)) for thing in others}
        opened = {f for f in furniture if random.random() < 0.5}
        start = str(random.choice(self.rooms))
        self.world = _World(wanted, target, start, {wanted: source, **places}, opened)
        self.goal = (
            f"take {wanted} from {source} at {self.room_of[source]}. "
            f"then go to {self.room_of[target]} and put {wanted} in {target}"
        )
        self.turns = 0
        return self._look(self.world)

    def _now(self) -> _World:
        if self.world is None:
            raise InputError("reset a text environment before you step it")
        return self.world

    def _here(self, world: _World) -> list[str]:
        return [f for f, room in self.room_of.items() if room == world.room]

    def _seen(self, world: _World) -> list[str]:
        here = [f for f in self._here(world) if f in world.opened]
        return [t for t, place in world.things.items() if place in here]

    def _held(self, world: _World) -> list[str]:
        return [t for t, place in world.things.items() if place == ""]

    def _look(self, world: _World) -> str:
        parts = [f"you are at {world.room}"]
        for f in self._here(world):
            inside = [t for t, place in world.things.items() if place == f]
            if f not in world.opened:
                parts.append(f"closed {f}")
            else:
                parts.append(f"open {f} with {' and '.join(inside) or 'nothing'}")
        parts.append(f"you carry {' and '.join(self._held(world)) or 'nothing'}")
        return ". ".join(parts)

    def admissible(self) -> tuple[str, ...]:
        """All that can be said about what is in sight."""
        world = self._now()
        here, held = self._here(world), self._held(world)
        return (
            *(f"go to {room}" for room in self.exits[world.room]),
            *(f"{verb} {f}" for f in here for verb in ("open", "close")),
            *(f"take {thing}" for thing in self._seen(world)),
            *(f"put {thing} in {f}" for thing in held for f in here),
            *(f"eat {thing}" for thing in held),
            "look", "wait",
        )  # fmt: skip

    def step(self, text: str) -> TextStep:
        """One turn; the quest is over when the thing is in its place, eaten, or time is up."""
        world = self._now()
        self.turns += 1
        refused = self._do(world, text)
        won = world.things.get(world.wanted) == world.target
        lost = world.wanted not in world.things or self.turns >= self.limit
        said = self._look(world)
        return TextStep(f"you can't. {said}" if refused else said, float(won), won or lost)

    def _do(self, world: _World, text: str) -> bool:
        """Carry a command out; whether it was refused."""
        verb, _, rest = text.partition(" ")
        if text in ("look", "wait"):
            return False
        if verb == "go" and (room := rest.removeprefix("to ")) in self.exits[world.room]:
            world.room = room
            return False
        here, held = self._here(world), self._held(world)
        if verb in ("open", "close") and rest in here:
            refused = (rest in world.opened) == (verb == "open")
            (world.opened.add if verb == "open" else world.opened.discard)(rest)
            return refused
        if verb == "take" and rest in self._seen(world) and not held:
            world.things[rest] = ""
            return False
        if verb == "eat" and rest in held:
            del world.things[rest]
            return False
        thing, _, place = rest.partition(" in ")
        if verb == "put" and thing in held and place in here and place in world.opened:
            world.things[thing] = place
            return False
        return True

    def gold(self, task: int) -> list[str]:
        """The commands of an expert: the shortest ways, and nothing else."""
        self.reset(task)
        world = self._now()
        source = world.things[world.wanted]
        there = [*self._way(world.room, self.room_of[source]), *_opening(source, world),
                 f"take {world.wanted}"]  # fmt: skip
        back = [*self._way(self.room_of[source], self.room_of[world.target]),
                *_opening(world.target, world),
                f"put {world.wanted} in {world.target}"]  # fmt: skip
        return there + back

    def _way(self, start: str, end: str) -> list[str]:
        before: dict[str, str] = {start: ""}
        queue = deque([start])
        while end not in before:
            room = queue.popleft()
            for other in self.exits[room]:
                if other not in before:
                    before[other] = room
                    queue.append(other)
        way: list[str] = []
        while end != start:
            way.append(f"go to {end}")
            end = before[end]
        return way[::-1]


def _opening(place: str, world: _World) -> list[str]:
    return [] if place in world.opened else [f"open {place}"]


def _corridors(rooms: tuple[str, ...], house: int) -> dict[str, tuple[str, ...]]:
    random = np.random.default_rng(house)
    joined = {(int(random.integers(i)), i) for i in range(1, len(rooms))}
    first, second = sorted(random.permutation(len(rooms))[:2].tolist())
    joined.add((first, second))
    return {
        room: tuple(rooms[j] for j in range(len(rooms)) if (i, j) in joined or (j, i) in joined)
        for i, room in enumerate(rooms)
    }


def text_quest(
    games: int = 12, first: int = 0, rooms: int = 8, things: int = 6, house: int = 0,
    limit: int = 20, buckets: int = 512, memory: int = 2,
) -> TextTask:  # fmt: skip
    """Quests `first` .. `first + games - 1` in one house; an observation shows the last `memory`
    turns."""
    return TextTask(
        "text-quest", f"{games} quests in a house of {rooms} rooms, in words",
        lambda: Quest(rooms, things, house, limit), tuple(range(first, first + games)),
        TextLayout(buckets, 1 + 2 * memory, commands=12 + rooms),
    )  # fmt: skip
