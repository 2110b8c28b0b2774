# ruff: noqa: E501 (texts stand on one line)
"""Texts that try every rule of the splitter and of the quality filters; what spaCy and datatrove say of some of them is
kept in ``english_said.json``. ``python tests/text/english_cases.py`` asks them again (in ``.venv-peers/datatrove``).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from treadle.text.english.exceptions import special_cases

ROOT = Path(__file__).resolve().parent.parent.parent
SAID = Path(__file__).with_name("english_said.json")
SCRIPT = ROOT / "benchmarks" / "data_filters_peer.py"
PACKAGES = ("datatrove==0.10.1", "regex==2026.11.19", "spacy==3.8.18")  # datatrove imports regex without saying so

_BY_HAND = (
    "",
    " ",
    "  ",
    "a",
    " a",
    "a  b \n c\t",
    "Hello, world!",
    "don't I'mma y'all can't've",
    "(don't)",
    "\u2018don\u2019t\u2019",
    "[3]): x):y 50201-8); {kill-e.} '\u2019ome\u2019 a-goin'' }''\\sub 8 ) : ) :-)) (:",
    "5km/h. 5 km/h 10m\u00b2 3US$ 7\u20ac 5+ 5+6 +5 +a $5 US$5 A$ 9%",
    "20\u00b0C. \u00b0C. 20\u00b0 C.",
    "U.S.A. U.S. A. a.b.c. end.. end... ..start \u2026\u2026 \u2026\u2026\u2026 x\u2026y",
    "well-known a--b a---b a----b a\u2014b a\u2014\u2014b a\u2014\u2014\u2014b 1-2 1-a a-1 a~b",
    "a,b 1,000 a,1 lower.Upper Upper.Upper 'a'.'b' a:b a/b a=b 1<b <b> a>b x*y 2*3 2^-3",
    "http://www.example.com/a?b=c (http://a.bc) a@b.com, a.b@c.co: ftp://x.yz:80/ x.yz:8 x.yz:123456",
    "1.2.3.4 10.0.0.1 127.0.0.1 192.168.1.1 172.16.0.1 172.32.0.1 169.254.1.1 223.255.255.254 224.0.0.1 1.2.3.255 x@1.2.3.4:8080/a",
    "-a.com a-.com a_b.com a.b-c.d " + "x" * 64 + ".com " + "x" * 65 + ".com a." + "b" * 63 + " a." + "b" * 64,
    "IS_DIGIT",
    "Mr. and Mrs. Smith's dog's. \"Yes!\" he said?! \u201cNo.\u201d Fine\u3002\u8fd9 \u4e2d\u6587\u3002",
    "caf\u00e9\u2019s na\u00efve \u00c9A. \u00e9A. \u0416\u0416. \u0436\u0436. \u1f600 \U0001f600\U0001f601a \U0001f1e9\U0001f1ea ok\U0001f44d.",
    "a\u00a0b\u2003c\u3000d\x1ce\x85f\u200bg",
)
_PIECES = (
    *".,:;!?-\u2014\u2013~'\"\u2019\u201c()[]{}<>/\\@#$%&*+=^_|`\u2026\u00b0\u20ac\u00a7\u00ab\u00bb",
    "...",
    "--",
    "'s",
    "\u2019S",
    "a",
    "B",
    "AB",
    "word",
    "Word",
    "7",
    "42",
    "km",
    "m\u00b2",
    "US$",
    "com",
    "www.",
    "http://",
    "1.2.3.4",
    "\u00e9",
    "\u0416",
    "\u4e2d",
    "\U0001f600",
    "\u00bd",
    "\u0663",
    "\u01bb",
    "_x",
    "n't",
)

_NOUNS = "river stone garden letter window morning farmer engine harbor teacher winter market song bridge"
_VERBS = "crosses follows paints remembers carries opens repairs watches leaves finds"


def chunks(count: int, seed: int) -> Iterator[str]:
    """Texts of words put together at random from what the rules are about."""
    random_ = random.Random(seed)
    specials = sorted(special_cases())
    for _ in range(count):
        words = []
        for _ in range(random_.randint(1, 6)):
            parts = random_.choices(_PIECES, k=random_.randint(1, 6))
            if random_.random() < 0.4:
                parts.insert(random_.randrange(len(parts) + 1), random_.choice(specials))
            words.append("".join(parts))
        yield random_.choice((" ", " ", "  ", "\n")).join(words)


def special_texts() -> Iterator[str]:
    """Every special case alone, between brackets, before a stop, after a hyphen, and twice."""
    specials = sorted(special_cases())
    for start in range(0, len(specials), 50):
        some = specials[start : start + 50]
        yield "\n".join(f"{one} ({one}) {one}. x-{one} {one}{one} \u201c{one},\u201d a{one} {one}1" for one in some)


def character_texts() -> Iterator[str]:
    """Characters of all kinds at the start, at the end and in the middle of words of several kinds: all of the first
    planes but for the middle of the large blocks of letters.
    """
    places = (
        (0, 0x3401, 1),
        (0x3400, 0xA000, 97),
        (0xA000, 0xAC01, 1),
        (0xAC00, 0xD7A0, 97),
        (0xD7A0, 0xD800, 1),
        (0xE000, 0xF900, 997),
        (0xF900, 0x11000, 1),
        (0x20000, 0x30000, 997),
    )
    codes = [code for first, last, step in places for code in range(first, last, step)]
    codes += [code for code in range(0x11000, 0x20000) if unicodedata.category(chr(code)) not in ("Cn", "Lo")]
    codes += [0x4DBF, 0x4DC0, 0x9FFF, 0x2A6DF, 0x2A6E0, 0x2EBEF, 0x2EBF0, 0x2FA1F, 0x2FA20, 0x10FFFF]
    for start in range(0, len(codes), 400):
        some = map(chr, codes[start : start + 400])
        yield "\n".join(
            f"{c}a a{c} a{c}b A{c}. AA{c} a.{c} 1{c} 1{c}2 {c}.com {c}.{c}{c} {c},a a,{c} {c}-a" for c in some
        )


def recorded_texts() -> list[str]:
    """The texts whose words are kept."""
    return [*_BY_HAND, *chunks(250, seed=1)]


def documents() -> list[str]:
    """Texts for the quality filters: each rule's side to fall on, at its limit and beyond it."""
    random_ = random.Random(2)
    nouns, verbs = _NOUNS.split(), _VERBS.split()

    def sentence() -> str:
        one, other, place = random_.sample(nouns, 3)
        return f"The {one} {random_.choice(verbs)} that {other} of the {place} and {random_.choice(verbs)} with {random_.randint(2, 999)} of them."

    def prose(count: int, end: str = "\n") -> str:
        return end.join(sentence() for _ in range(count))

    lines = prose(10).split("\n")
    return [
        "",
        "\n\n",
        "...",
        prose(2),
        prose(3),
        prose(12),
        prose(40),
        prose(12, " "),
        prose(12, "\n\n"),
        " ".join("a b to the" for _ in range(40)),
        " ".join(["incomprehensibilities", "of"] * 40),
        " ".join(["incomprehensibilities"] * 60),
        prose(9) + " #" * 14,
        prose(9) + " #" * 30,
        prose(9) + "...\n" * 9,
        prose(9) + " \u2026" * 30,
        "\n".join("- " + line for line in lines),
        "\n".join("  \u2022" + line for line in lines[:9]) + "\nx",
        "\n".join(line[:-1] + "..." for line in lines),
        "\n".join(f"{number} {number + 1} the of {number}" for number in range(60)),
        prose(9)
        .replace("The", "A")
        .replace(" of ", " ")
        .replace("and", "or")
        .replace("that", "a")
        .replace("with", "by")
        .replace(" the ", " "),
        "\n".join([lines[0]] * 3 + lines[:7]),
        "\n".join([lines[0]] * 9 + lines),
        "\n\n".join([lines[0]] * 6 + lines),
        "\n\n".join([prose(3)] * 2 + [prose(1) for _ in range(20)]),
        prose(8) + " of the way" * 60,
        prose(8) + " " + " ".join(["over and over we say the same again"] * 5),
        " ".join([prose(2, " ")] * 2) + prose(6),
        " ".join([*lines[:5], prose(4, " "), *lines[:5]]),
        prose(12) + "\nIt is {all}.",
        prose(12) + "\nLorem ipsum dolor sit amet.",
        prose(12) + "\nPlease enable JavaScript here.",
        prose(12) + "\nWe value your privacy policy very much.",
        prose(12).replace(".", ".[12]"),
        prose(12).replace("them", "[citation needed] them[1]"),
        prose(6) + "\n" + "x" * 1001 + " and more text.",
        prose(6) + "\nToo short.\nNo end here",
        prose(4) + "\nOne. Two. Three.",
        prose(4),
        "\n".join(line.rstrip(".") for line in lines),
        "\n".join(line[:25] + "." for line in lines),
        "\n".join(line + "\u3002" for line in lines),
        "\n".join(f"Go {word} now." for word in nouns * 3),
        "\n".join(word for word in nouns * 5),
        "\r\n".join(lines),
        "\x0b".join(lines),
        "\u2028".join(lines),
        lines[0] + "\n" * 30 + prose(9),
        "\n".join(f"{line} \U0001f600\u00bd \u4e2d\u6587\u3002" for line in lines),
    ]


def ask(python: Path, task: str, texts: list[str]) -> list[Any]:
    """What the peer says of each text."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "texts.jsonl"
        path.write_text("".join(json.dumps(text) + "\n" for text in texts), "ascii")
        done = subprocess.run([str(python), str(SCRIPT), task, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def asked(python: Path) -> dict[str, Any]:
    """What is to be kept."""
    return {"words": ask(python, "words", recorded_texts()), "decisions": ask(python, "decide", documents())}


if __name__ == "__main__":
    said = asked(Path(sys.argv[1]) if sys.argv[1:] else ROOT / ".venv-peers" / "datatrove" / "bin" / "python")
    SAID.write_text(json.dumps(said, ensure_ascii=True, separators=(",", ":")) + "\n", "ascii")
