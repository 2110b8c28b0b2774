"""Personal data beside Presidio: ``python -m benchmarks.data_pii [--quick]``.

Both look for the structured kinds that `5-pii` has labels of (card, IBAN, SSN, phone, e-mail, IP address, US driver
license) in the same labeled texts, each in one process, by processor time; ours looks for all its kinds. Presidio has
no model here: its NLP engine is a blank English spaCy pipeline whose lemmas are the words in lower case, so its context
words work, and it finds no names. Its tldextract is kept off the network. Ratio ``presidio``: documents per second.

A label is found when a finding of its kind covers it; a finding is right when it overlaps a label of its kind.
``mail_docs_per_s`` is over real mails (SpamAssassin), headers included. Nothing that is found is printed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS, environment, version
from benchmarks.report import print_report, versions
from treadle.text.personal_data import KINDS, Scanner

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TREADLE_TEST_DATA", ROOT.parent / "shared" / "data")) / "5-pii"
PEER = PEERS / "presidio"
LABELS = {
    "CREDIT_CARD": "credit_card",
    "PHONE_NUMBER": "phone",
    "IBAN_CODE": "iban",
    "US_SSN": "us_ssn",
    "IP_ADDRESS": "ip",
    "EMAIL_ADDRESS": "email",
    "US_DRIVER_LICENSE": "driver_license",
}
ROUNDS = 5
Span = tuple[int, int, str]

PRESIDIO = """
import json, logging, sys, time
logging.disable(logging.WARNING)
import spacy, tldextract
from spacy.language import Language
tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import SpacyNlpEngine

@Language.component("lower_lemmas")
def lower_lemmas(doc):
    for token in doc:
        token.lemma_ = token.lower_
    return doc

class Blank(SpacyNlpEngine):
    def __init__(self):
        super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
        pipeline = spacy.blank("en")
        pipeline.add_pipe("lower_lemmas")
        self.nlp = {"en": pipeline}

    def load(self):
        pass

with open(sys.argv[1]) as file:
    texts, entities = json.load(file)
engine = AnalyzerEngine(nlp_engine=Blank(), supported_languages=["en"])
engine.analyze(texts[0], language="en", entities=entities)
began = time.process_time()
found = [engine.analyze(text, language="en", entities=entities) for text in texts]
seconds = time.process_time() - began
print(json.dumps({"seconds": seconds, "found": [[(r.start, r.end, r.entity_type) for r in each] for each in found]}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Personal data beside Presidio.")
    parser.add_argument("--quick", action="store_true", help="fewer documents for Presidio, within 60 seconds")
    quick = parser.parse_args().quick
    make_peer()
    texts, labels = labeled()
    step = 8 if quick else 1
    ours, seconds = timed(texts)
    theirs, their_seconds = presidio(texts[::step])
    recall, precision = quality(ours, labels)
    their_recall, their_precision = quality(theirs, labels[::step])
    speed, their_speed = len(texts) / seconds, len(texts[::step]) / their_seconds
    mails = list(real_mails())
    _, mail_seconds = timed(mails, rounds=1)
    figures: dict[str, Any] = {
        "docs_per_s": round(speed),
        "recall": round(recall, 4),
        "precision": round(precision, 4),
        "presidio_docs_per_s": round(their_speed, 1),
        "presidio_recall": round(their_recall, 4),
        "presidio_precision": round(their_precision, 4),
        "documents": len(texts),
        "presidio_documents": len(texts[::step]),
        "labels": dict(Counter(kind for each in labels for _, _, kind in each)),
        "kinds": len(KINDS),
        "mail_docs_per_s": round(len(mails) / mail_seconds),
        "mail_mb_per_s": round(sum(map(len, mails)) / mail_seconds / 1e6, 2),
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(("treadle", "google-re2")) | {"presidio-analyzer": peer_version()},
    }
    print_report("data_pii", {"presidio": speed / their_speed}, figures)


def make_peer() -> None:
    """Presidio in an environment of its own, made on first use."""
    environment("presidio", "presidio-analyzer")


def peer_version() -> str:
    """The version of Presidio that was measured."""
    return version(PEER, "presidio-analyzer")


def labeled() -> tuple[list[str], list[list[Span]]]:
    """The labeled texts, and the structured ones of their labels by our names of kinds."""
    with gzip.open(DATA / "presidio_synth_dataset_v2.json.gz") as file:
        items = json.load(file)
    with gzip.open(DATA / "presidio_generated_seen_templates.jsonl.gz") as file:
        items += map(json.loads, file)
    labels = [
        [
            (span["start_position"], span["end_position"], LABELS[span["entity_type"]])
            for span in item["spans"]
            if span["entity_type"] in LABELS
        ]
        for item in items
    ]
    return [item["full_text"] for item in items], labels


def real_mails() -> Iterable[str]:
    """The mails of the archive, headers included."""
    with tarfile.open(DATA / "spamassassin_mail.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                yield file.read().decode("latin-1")


def timed(texts: Sequence[str], rounds: int = ROUNDS) -> tuple[list[list[Span]], float]:
    """What we find in each text, and the median of the processor time it takes."""
    scanner = Scanner()
    seconds = []
    found: list[list[Span]] = []
    for _ in range(rounds):
        began = time.process_time()
        found = [[(each.start, each.end, each.kind) for each in scanner.find(text)] for text in texts]
        seconds.append(time.process_time() - began)
    return found, statistics.median(seconds)


def presidio(texts: Sequence[str]) -> tuple[list[list[Span]], float]:
    """What Presidio finds, by our names of kinds, and its processor time without what it takes to start."""
    with tempfile.TemporaryDirectory(prefix="treadle-pii-", dir=PEERS) as folder:
        path = Path(folder) / "texts.json"
        path.write_text(json.dumps([texts, list(LABELS)]))
        command = [str(PEER / "bin" / "python"), "-c", PRESIDIO, str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"Presidio failed: {done.stderr[-500:]}")
    said = json.loads(done.stdout)
    return [[(start, end, LABELS[name]) for start, end, name in each] for each in said["found"]], said["seconds"]


def quality(found: Sequence[Sequence[Span]], labels: Sequence[Sequence[Span]]) -> tuple[float, float]:
    """Recall over the labels and precision over the findings of kinds that have labels."""
    structured = set(LABELS.values())
    covered = right = wanted = given = 0
    for all_found, theirs in zip(found, labels, strict=True):
        ours = [span for span in all_found if span[2] in structured]
        wanted, given = wanted + len(theirs), given + len(ours)
        covered += sum(any(f[2] == kind and f[0] <= start and f[1] >= end for f in ours) for start, end, kind in theirs)
        right += sum(any(s[2] == kind and s[0] < end and start < s[1] for s in theirs) for start, end, kind in ours)
    return covered / wanted, right / given


if __name__ == "__main__":
    main()
