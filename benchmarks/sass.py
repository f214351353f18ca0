"""Read the machine code of a GPU kernel: which instructions a warp issues in one round of each of its loops."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

_LABEL = re.compile(r"^(\.L\w+):")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(@\S+\s+)?([A-Z][A-Z0-9_.]*)\s*([^;]*);")
_TARGET = re.compile(r"`\((\.L\w+)\)")


@dataclass(frozen=True)
class Loop:
    """The opcodes that a warp issues in one round, on the shortest and on the longest way through the branches."""

    shortest: tuple[str, ...]
    longest: tuple[str, ...]


@dataclass
class _Block:
    """Instructions that are issued one after another, and the blocks that may follow."""

    opcodes: tuple[str, ...] = ()
    followers: list[int] = field(default_factory=list)


def loops(listing: str) -> list[Loop]:
    """Returns the loops in a listing of `nvdisasm -c`, as they stand there; waiting loops of one branch are left out.

    A loop within another counts as one round of it.
    """
    blocks = _blocks(listing)
    back = _back_edges(blocks)
    found = []
    for head in sorted({head for _, head in back}):
        ends = {end for end, target in back if target == head}
        loop = Loop(*(_way(blocks, back, head, ends, choose, {}) or () for choose in (min, max)))
        if len(loop.longest) > 1:
            found.append(loop)
    return found


def _way(
    blocks: list[_Block],
    back: set[tuple[int, int]],
    block: int,
    ends: set[int],
    choose: Callable[..., tuple[str, ...]],
    known: dict[int, tuple[str, ...] | None],
) -> tuple[str, ...] | None:
    """Returns the opcodes from a block to an end of the loop, by the way that `choose` takes, or None."""
    if block not in known:
        ways = [
            _way(blocks, back, each, ends, choose, known)
            for each in blocks[block].followers
            if (block, each) not in back
        ]
        if block in ends:
            ways.append(())
        found = [way for way in ways if way is not None]
        known[block] = blocks[block].opcodes + choose(found, key=len) if found else None
    return known[block]


def _blocks(listing: str) -> list[_Block]:
    blocks, names, jumps, goes_on = [_Block()], {}, [], True
    for line in listing.splitlines():
        label, instruction = _LABEL.match(line), _INSTRUCTION.match(line)
        if label or (instruction and blocks[-1].opcodes[-1:] == ("BRA",)):
            if goes_on:
                blocks[-1].followers.append(len(blocks))
            blocks.append(_Block())
            goes_on = True
        if label:
            names[label[1]] = len(blocks) - 1
        elif instruction and goes_on:
            predicate, opcode, operands = instruction.groups()
            opcode = opcode.split(".")[0] if opcode.startswith("BRA") else opcode
            blocks[-1].opcodes += (opcode,)
            if opcode == "BRA":
                jumps.append((len(blocks) - 1, _TARGET.search(operands)[1]))
            # A condition stands before the instruction or, where it is uniform, among its operands.
            goes_on = not (opcode in ("BRA", "EXIT") and predicate is None and not operands.startswith("U"))
    for block, name in jumps:
        blocks[block].followers.append(names[name])
    return blocks


def _back_edges(blocks: list[_Block]) -> set[tuple[int, int]]:
    """Returns the edges that lead back to a block which is still on the way, from the entry."""
    found, done, way = set(), set(), [(0, iter(blocks[0].followers))]
    on_the_way = {0}
    while way:
        block, followers = way[-1]
        next_ = next(followers, None)
        if next_ is None:
            way.pop()
            on_the_way.remove(block)
            done.add(block)
        elif next_ in on_the_way:
            found.add((block, next_))
        elif next_ not in done:
            way.append((next_, iter(blocks[next_].followers)))
            on_the_way.add(next_)
    return found
