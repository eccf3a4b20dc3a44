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
    parser = _Parser(text)
    for token in _TOKEN.finditer(text):
        parser.take(token)
    return parser.parts()


class _Parser:
    """The state of a prompt that is being parsed: finished pieces, open brackets, and the text of the next piece."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pieces: list[tuple[str, float] | None] = []  # None is a BREAK
        self.opened: list[tuple[str, int, int]] = []  # bracket, its place in the text, the first piece in it
        self.letters: list[str] = []

    def take(self, token: re.Match[str]) -> None:
        """Process one token. Raises PromptError."""
        found, place = token[0], token.start()
        unsupported = self._unsupported(token)
        if unsupported:
            raise _refused(self.text, place, *unsupported)
        if token["weight"] and self.opened and self.opened[-1][0] == "(":
            self._close("(", self._factor(token), place)
        elif token["bracket"] in ("(", "["):
            self._end_piece()
            self.opened.append((found, place, len(self.pieces)))
        elif token["bracket"]:
            self._close("(" if found == ")" else "[", STRONGER if found == ")" else 1 / STRONGER, place)
        elif token["editing"] or token["weight"]:
            # no bracket is open that it could close: colon and number would be text, but the bracket is not
            raise _refused(self.text, place, "a bracket that closes nothing", _ESCAPE)
        elif found == "BREAK":
            self._end_piece()
            self.pieces.append(None)
        else:
            self.letters.append(token["literal"] or found)

    def parts(self) -> list[Part]:
        """Return the parts after the last token. Raises PromptError for a bracket that is still open."""
        self._end_piece()
        if self.opened:
            raise _refused(self.text, self.opened[-1][1], "a bracket that nothing closes", _ESCAPE)
        parts: list[Part] = [[]]
        for piece in self.pieces:
            if piece is None:
                parts.append([])
            else:
                parts[-1].append(piece)
        return [part or [("", 1.0)] for part in parts]

    def _unsupported(self, token: re.Match[str]) -> tuple[str, str] | None:
        """Return the name of syntax that does more than weigh, and a hint; None for any other token."""
        square = any(bracket == "[" for bracket, _, _ in self.opened)
        if token["editing"] and square:
            return "prompt editing, [from:to:when]", "draw in two steps, with Image2Image"
        if token[0] == "|" and square:
            return "prompts that take turns, [one|other]", "choose one of them"
        if token[0] == "AND":
            return "AND, which denoises prompts side by side", "write BREAK, or a comma"
        if token["network"]:
            return f"{token[0]}, which loads weights", "lay a LoRA over the model: MODEL + lora:NAME*0.8"
        return None

    def _factor(self, token: re.Match[str]) -> float:
        factor = float(token["weight"])
        if factor < 0:
            found = f"the weight {factor:g}, expected at least 0"
            raise _refused(self.text, token.start(), found, "use the negative prompt")
        return factor

    def _end_piece(self) -> None:
        if "".join(self.letters).strip():
            self.pieces.append(("".join(self.letters), 1.0))
        self.letters.clear()

    def _close(self, bracket: str, factor: float, place: int) -> None:
        """Multiply the weights of the pieces in the innermost bracket, which must be of the given kind."""
        self._end_piece()
        if not self.opened or self.opened[-1][0] != bracket:
            raise _refused(self.text, place, "a bracket that closes nothing", _ESCAPE)
        first = self.opened.pop()[2]
        self.pieces[first:] = [piece and (piece[0], piece[1] * factor) for piece in self.pieces[first:]]


_ESCAPE = "close it, or write a backslash before it if it is text"


def _refused(text: str, place: int, found: str, hint: str) -> PromptError:
    near = text[max(0, place - 20) : place + 20]
    return PromptError(f'found {found}, at character {place + 1} of the prompt, near "{near}"', hint)
