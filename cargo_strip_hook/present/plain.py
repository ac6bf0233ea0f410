"""Making text from files safe to show to people.

A name in an object file, an archive or a folder may be any bytes. Characters that move the cursor,
end a line, change the direction of writing or are invisible are shown as Python escapes, so that no
name can be taken for one of our own lines, or for another name. All output for people goes through
here.

Sources: ECMA-48 (C0 and C1 controls); Unicode Standard Annex 9 (bidirectional controls), and the
property Default_Ignorable_Code_Point (what is invisible).
"""

from __future__ import annotations

import re
from typing import Any

_UNSAFE = (
    "[\0-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ASCII = {"→": "->", "−": "-", "–": "-", "…": "..."}
# what has a meaning within a line of Markdown: CommonMark, "Inlines"; GFM, "Tables"
_MARKDOWN = r"[\\`*_\[\]|~!]"


def plain(text: str) -> str:
    """The text on one line, without control characters; bytes that are no text become ``\\xff``."""
    if text.isascii() and text.isprintable():  # nearly always
        return text
    return re.sub(_UNSAFE, _escape, text)


def _escape(match: re.Match[str]) -> str:
    sign = match[0]
    code = ord(sign)
    if sign in _SHORT:
        return _SHORT[sign]
    if 0xDC80 <= code <= 0xDCFF:  # a byte, as `surrogateescape` decodes it
        return f"\\x{code & 0xFF:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def markdown(text: str) -> str:
    """The same for a heading or a table's cell in Markdown, without markup."""
    safe = plain(re.sub(_MARKDOWN, r"\\\g<0>", text))
    return safe.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def html(text: str) -> str:
    """The same for an element's text, or an attribute's value, in HTML."""
    from html import escape

    return escape(plain(text))


def fit(text: str, encoding: str) -> str:
    """The text with escapes for what an encoding does not have."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        for sign, ascii in _ASCII.items():
            text = text.replace(sign, ascii)
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def json_line(message: dict[str, Any], encoding: str) -> str:
    """JSON on one line, which keeps every name: unsafe characters are written as ``\\uXXXX``."""
    import json

    text = json.dumps(message, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # bytes of a path that are no text: `\udcXX`
        text = json.dumps(message)
    return re.sub(_UNSAFE, _escape_json, text)


def _escape_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
