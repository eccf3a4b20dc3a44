"""The syntax of prompts of A1111's web UI, parsed to words and weights."""

from __future__ import annotations

import re

__all__ = ["Part", "PromptError", "parse_a1111"]

Part = list[tuple[str, float]]
"""Pieces of text with their weights, which fill windows of their own."""


class PromptError(ValueError):
    """An error for a prompt that cannot be parsed, with a message and a hint."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}")
        self.message, self.hint = message, hint


STRONGER = 1.1
"""The factor of a pair of round brackets without a number; square brackets divide by it."""

_TOKEN = re.compile(
    r"""
    \\(?P<literal>[()\[\]\\])                           # an escaped bracket is a bracket
    | (?P<editing>:\s*[\d.]+\s*\])                      # [from:to:when] changes the prompt while it is denoised
    | :\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)     # the end of (words:1.2)
    | (?P<bracket>[()\[\]])
    | (?P<word>\b(?:BREAK|AND)\b)
    | (?P<network><[A-Za-z]+:[^<>]*>)                   # <lora:name:0.8>
    | (?P<text>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def parse_a1111(text: str) -> list[Part]:
    """Parse a prompt to its parts, of which there are several where it contains BREAK.

    ``(words)`` weigh 1.1 times as much, ``[words]`` 1 / 1.1 times, ``(words:1.2)`` 1.2 times; nested weights multiply,
    and a backslash escapes a bracket. Raises PromptError for brackets without a counterpart, for negative weights, and
    for syntax that does more than weigh: AND, ``[from:to:0.5]``, ``[one|other]``, ``<lora:name:1>``.
    """
    pieces: list[tuple[str, float] | None] = []  # None is a BREAK
    opened: list[tuple[str, int, int]] = []  # bracket, its place in the text, the first piece in it
    letters: list[str] = []

    def end_piece() -> None:
        if "".join(letters).strip():
            pieces.append(("".join(letters), 1.0))
        letters.clear()

    def close(bracket: str, factor: float, place: int) -> None:
        end_piece()
        if not opened or opened[-1][0] != bracket:
            raise _refused(text, place, "a bracket that closes nothing", _ESCAPE)
        first = opened.pop()[2]
        pieces[first:] = [piece and (piece[0], piece[1] * factor) for piece in pieces[first:]]

    for token in _TOKEN.finditer(text):
        found, place = token[0], token.start()
        square = any(bracket == "[" for bracket, _, _ in opened)
        if token["literal"]:
            letters.append(token["literal"])
        elif token["editing"] and square:
            raise _refused(text, place, "prompt editing, [from:to:when]", "draw in two steps, with Image2Image")
        elif token["weight"] and opened and opened[-1][0] == "(":
            factor = float(token["weight"])
            if factor < 0:
                raise _refused(text, place, f"the weight {factor:g}, expected at least 0", "use the negative prompt")
            close("(", factor, place)
        elif token["bracket"] in ("(", "["):
            end_piece()
            opened.append((found, place, len(pieces)))
        elif token["bracket"]:
            close("(" if found == ")" else "[", STRONGER if found == ")" else 1 / STRONGER, place)
        elif token["editing"] or token["weight"]:
            # no bracket is open that it could close: colon and number would be text, but the bracket is not
            raise _refused(text, place, "a bracket that closes nothing", _ESCAPE)
        elif found == "BREAK":
            end_piece()
            pieces.append(None)
        elif found == "AND":
            raise _refused(text, place, "AND, which denoises prompts side by side", "write BREAK, or a comma")
        elif token["network"]:
            raise _refused(
                text, place, f"{found}, which loads weights", "lay a LoRA over the model: MODEL + lora:NAME*0.8"
            )
        elif found == "|" and square:
            raise _refused(text, place, "prompts that take turns, [one|other]", "choose one of them")
        else:
            letters.append(found)
    end_piece()
    if opened:
        raise _refused(text, opened[-1][1], "a bracket that nothing closes", _ESCAPE)
    parts: list[Part] = [[]]
    for piece in pieces:
        if piece is None:
            parts.append([])
        else:
            parts[-1].append(piece)
    return [part or [("", 1.0)] for part in parts]


_ESCAPE = "close it, or write a backslash before it if it is text"


def _refused(text: str, place: int, found: str, hint: str) -> PromptError:
    near = text[max(0, place - 20) : place + 20]
    return PromptError(f'found {found}, at character {place + 1} of the prompt, near "{near}"', hint)
