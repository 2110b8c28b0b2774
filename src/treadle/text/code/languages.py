"""The language of a file, by its name or its first line. Names and kinds are those of GitHub's Linguist."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

Kind = Literal["programming", "markup", "prose", "data"]

_PROGRAMMING = """
Ada adb ads|Assembly asm s|AWK awk|Batchfile bat cmd|C c h|C# cs csx|C++ cc cpp cxx c++ hh hpp hxx inl ipp tpp|
Clojure clj cljc cljs edn|CMake cmake|COBOL cbl cob|CoffeeScript coffee|Common Lisp lisp lsp|Crystal cr|Cuda cu cuh|
Cython pyx pxd|D d|Dart dart|Elixir ex exs|Elm elm|
Emacs Lisp el|Erlang erl hrl|F# fs fsi fsx|Fortran f f90 f95 f03 f08 for|
GDScript gd|GLSL glsl vert frag|Go go|Groovy groovy gradle|Haskell hs lhs|Haxe hx|HCL hcl tf tfvars|Idris idr|Java java|
JavaScript js cjs mjs jsx|Jsonnet jsonnet libsonnet|Julia jl|Kotlin kt kts|Lean lean|Lua lua|M4 m4 ac|Makefile mk mak|
MATLAB matlab|Mojo mojo|Nim nim nims|Nix nix|Objective-C m|Objective-C++ mm|OCaml ml mli|Pascal pas pp dpr|Perl pl pm t|
PHP php phtml|PowerShell ps1 psm1 psd1|Prolog pro prolog|Puppet epp|PureScript purs|Python py pyi pyw|R r|Racket rkt|
Raku raku rakumod|Ruby rb rake gemspec|Rust rs|Scala scala sc sbt|Scheme scm ss|Shell sh bash zsh fish ksh bats|
Smalltalk st|Solidity sol|SQL sql|Standard ML sml sig|Starlark bzl star|Swift swift|SystemVerilog sv svh|Tcl tcl|
Thrift thrift|TypeScript ts cts mts tsx|V vsh|Verilog v vh|VHDL vhd vhdl|Vim Script vim|Visual Basic .NET vb|WGSL wgsl|
Zig zig|Protocol Buffer proto|GraphQL graphql gql
"""
_MARKUP = """
CSS css|HTML html htm xhtml|Jinja j2 jinja jinja2|Less less|Sass sass scss|Svelte svelte|
TeX tex ltx sty cls bib|Vue vue|
Handlebars hbs handlebars|Mustache mustache|EJS ejs|Jupyter Notebook ipynb|Haml haml|Pug pug
"""
_PROSE = """
Markdown md markdown mdx mkd|reStructuredText rst|AsciiDoc adoc asciidoc asc|Org org|
Text txt text|Roff 1 2 3 4 5 6 7 8 man|
Texinfo texi texinfo|RDoc rdoc|Wikitext wiki mediawiki
"""
_DATA = """
CSV csv|TSV tsv|Diff diff patch|INI ini cfg conf properties|JSON json jsonl ndjson geojson webmanifest|
JSON5 json5 jsonc|
SVG svg|TOML toml|XML xml xsd xsl xslt plist rss csproj vbproj resx wsdl|YAML yaml yml|Gettext po pot|Dotenv env|
Checksums sha256 md5
"""
_NAMES = {
    "makefile": "Makefile", "gnumakefile": "Makefile", "dockerfile": "Dockerfile", "containerfile": "Dockerfile",
    "cmakelists.txt": "CMake", "rakefile": "Ruby", "gemfile": "Ruby", "vagrantfile": "Ruby", "podfile": "Ruby",
    "jenkinsfile": "Groovy", "build.bazel": "Starlark", "workspace": "Starlark", "build": "Starlark",
    "sconstruct": "Python", "wscript": "Python", "justfile": "Just", "configure.ac": "M4", "meson.build": "Meson",
    "pkgbuild": "Shell", ".bashrc": "Shell", ".profile": "Shell", ".zshrc": "Shell", ".vimrc": "Vim Script",
    "readme": "Text", "license": "Text", "licence": "Text", "copying": "Text", "authors": "Text", "changelog": "Text",
    "contributing": "Text", "news": "Text", "notice": "Text", "todo": "Text", "install": "Text", "codeowners": "Text",
    ".gitignore": "INI", ".gitattributes": "INI", ".editorconfig": "INI", ".gitmodules": "INI", ".npmrc": "INI",
    ".clang-format": "YAML", "pipfile": "TOML", "go.mod": "Go Module", "go.sum": "Go Checksums",
    "requirements.txt": "Pip Requirements",
}  # fmt: skip
_MORE_KINDS: dict[str, Kind] = {
    "Dockerfile": "programming", "Just": "programming", "Meson": "programming", "Go Module": "data",
    "Go Checksums": "data", "Pip Requirements": "data",
}  # fmt: skip
_INTERPRETERS = {
    "sh": "Shell", "bash": "Shell", "zsh": "Shell", "dash": "Shell", "ksh": "Shell", "fish": "Shell", "bats": "Shell",
    "python": "Python", "pypy": "Python", "node": "JavaScript", "nodejs": "JavaScript", "deno": "TypeScript",
    "ruby": "Ruby", "perl": "Perl", "php": "PHP", "lua": "Lua", "awk": "AWK", "gawk": "AWK", "rscript": "R",
    "julia": "Julia", "tclsh": "Tcl", "make": "Makefile", "escript": "Erlang", "groovy": "Groovy", "scala": "Scala",
    "runhaskell": "Haskell", "racket": "Racket", "guile": "Scheme", "pwsh": "PowerShell", "elixir": "Elixir",
    "swift": "Swift", "ocaml": "OCaml", "crystal": "Crystal", "raku": "Raku",
}  # fmt: skip
_SHEBANG = re.compile(rb"#!\s*(?:/\S*/)?env(?:\s+-\S+|\s+\w+=\S+)*\s+(\S+)|#!\s*(?:/\S*/)?(\S+)")
# Suffixes two languages share, and what only the second has in its beginning.
_SHARED = {
    "h": (re.compile(rb"(?m)^\s*(?:class\s+\w+|namespace\s|template\s*<|public:|private:|using\s+\w+)"), "C++"),
    "m": (re.compile(rb"(?m)^\s*(?:function\b|%|end\s*$)"), "MATLAB"),
    "ts": (re.compile(rb"<\?xml[^>]*>\s*<!DOCTYPE TS|<TS\b"), "XML"),
    "v": (re.compile(rb"(?m)^\s*(?:Require|Theorem|Lemma|Proof|Qed)\b"), "Rocq"),
    "t": (re.compile(rb"(?m)^\s*#!.*raku"), "Raku"),
    "pl": (re.compile(rb"(?m)^\s*:-"), "Prolog"),
}


def _table() -> tuple[dict[str, str], dict[str, Kind]]:
    suffixes: dict[str, str] = {}
    kinds: dict[str, Kind] = {**_MORE_KINDS, "Rocq": "programming"}
    groups: tuple[tuple[str, Kind], ...] = (
        (_PROGRAMMING, "programming"),
        (_MARKUP, "markup"),
        (_PROSE, "prose"),
        (_DATA, "data"),
    )
    for text, kind in groups:
        for group in text.replace("\n", "").split("|"):
            words = group.split()
            # A language's name may have several words; its suffixes are lower case and come after it.
            place = next(n for n, word in enumerate(words) if n and (word == word.lower()) and word != ".NET")
            name = " ".join(words[:place])
            kinds[name] = kind
            suffixes |= dict.fromkeys(words[place:], name)
    return suffixes, kinds


_SUFFIXES, KINDS = _table()
_BY_LOWER = {name.lower(): name for name in KINDS}


def language_of(path: str, head: bytes) -> str | None:
    """The language of a file; None where neither its name nor its first line tells."""
    name = PurePosixPath(path).name.lower()
    if name in _NAMES:
        return _NAMES[name]
    if name.startswith(("dockerfile.", "makefile.")):
        return _NAMES[name.partition(".")[0]]
    suffix = name.rpartition(".")[2] if "." in name else ""
    if suffix in _SHARED and _SHARED[suffix][0].search(head[:8192]):
        return _SHARED[suffix][1]
    return _SUFFIXES.get(suffix) or _interpreter(head)


def known(name: str) -> str | None:
    """A language as it is written here, whatever its capitals; None for one that is not known."""
    return _BY_LOWER.get(name.lower().replace("-", " ")) or _BY_LOWER.get(name.lower())


def _interpreter(head: bytes) -> str | None:
    match = _SHEBANG.match(head[:300])
    if match is None:
        return None
    name = (match[1] or match[2]).decode("ascii", "replace").rpartition("/")[2].lower()
    return _INTERPRETERS.get(re.sub(r"[\d.]+\Z", "", name))
