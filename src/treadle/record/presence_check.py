# fmt: off
"""Check a folder of `treadle prove` with Python's standard library and openssl; exits 1 on any doubt:

    python check.py DIR [--key KEY.pem] [--earlier HEADS.json] [--file FILE]

KEY.pem: the public key as you know it from elsewhere (without it, whoever made DIR chose the key); HEADS.json:
heads that you kept, one a line, of which the largest counts; FILE: a file of the artifact that the row names."""
import hashlib, json, pathlib, struct, subprocess, sys
IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
ORDER, MASK = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8), 0xFFFFFFFF
def compress(chain, block, counter, flags):  # BLAKE3, as its paper has it; slow: a megabyte takes seconds
    words = struct.unpack("<16I", block.ljust(64, b"\0"))
    v = [*chain, *IV[:4], counter & MASK, counter >> 32, len(block), flags]
    for _ in range(7):
        for i in range(8):
            a, b, c, d = i % 4, 4 + (i + i // 4) % 4, 8 + (i + i // 4 * 2) % 4, 12 + (i + i // 4 * 3) % 4
            for first, second, word in ((16, 12, words[2 * i]), (8, 7, words[2 * i + 1])):
                v[a] = v[a] + v[b] + word & MASK
                v[d] = ((v[d] ^ v[a]) >> first | (v[d] ^ v[a]) << 32 - first) & MASK
                v[c] = v[c] + v[d] & MASK
                v[b] = ((v[b] ^ v[c]) >> second | (v[b] ^ v[c]) << 32 - second) & MASK
        words = [words[place] for place in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]
def blake3(data, counter=0, top=8):
    if len(data) <= 1024:
        chain, last = IV, max(len(data) - 1, 0) // 64
        for at in range(last + 1):
            chain = compress(chain, data[64 * at : 64 * at + 64], counter, (at == 0) + (at == last) * (2 + top))
        return chain
    half = 1024 << ((len(data) - 1) // 1024).bit_length() - 1
    both = blake3(data[:half], counter, 0) + blake3(data[half:], counter + half // 1024, 0)
    return compress(IV, struct.pack("<16I", *both), 0, 4 + top)
def digest(path): return "b3:" + struct.pack("<8I", *blake3(pathlib.Path(path).read_bytes())).hex()
def expect(holds, problem): return holds or sys.exit(f"NOT proven: {problem}")
def node(left, right): return hashlib.sha256(b"\1" + left + right).digest()
def climb(index, last, old, new, path):  # up to the roots: RFC 9162, sections 2.1.3.2 and 2.1.4.2
    for sibling in map(bytes.fromhex, path):
        expect(last, "a path is too long")
        edge = index & 1 or index == last
        old, new = (node(sibling, old), node(sibling, new)) if edge else (old, node(new, sibling))
        while edge and index and not index & 1: index, last = index >> 1, last >> 1
        index, last = index >> 1, last >> 1
    return expect(not last, "a path is too short") and (old, new)
def signed(folder, name, key):  # the size and the root of a head
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-rawin", "-inkey", key, "-in", folder / f"{name}.txt"]
    done = subprocess.run([*command, "-sigfile", folder / f"{name}.sig"], stdout=subprocess.DEVNULL)
    what, size, root, rest = (folder / f"{name}.txt").read_text().split("\n")
    expect(done.returncode == 0 and (what, rest) == ("treadle ledger 1", ""), f"{name}.txt is not signed with {key}")
    return int(size), bytes.fromhex(root)
def main():
    sys.excepthook = lambda kind, error, trace: print(f"NOT proven: {kind.__name__} {error}", file=sys.stderr)
    folder, given = pathlib.Path(sys.argv[1]), dict(zip(sys.argv[2::2], sys.argv[3::2]))
    expect(len(sys.argv) == 2 + 2 * len(given) and set(given) <= {"--key", "--earlier", "--file"}, __doc__)
    key, proof = given.get("--key", folder / "key.pem"), json.loads((folder / "proof.json").read_bytes())
    size, root = signed(folder, "head", key)
    data = (folder / "row.json").read_bytes()
    row, leaf = json.loads(data), hashlib.sha256(b"\0" + data).digest()
    found = 0 < row["seq"] <= size and climb(row["seq"] - 1, size - 1, leaf, leaf, proof["path"])[1]
    expect(found == root, "the row does not lead to the signed root")
    print(f"the ledger of {size} rows, signed with {key}, holds: {data.decode()}")
    if "--earlier" in given or "consistency" in proof:
        first, older = signed(folder, "earlier", key)
        lines = pathlib.Path(given["--earlier"]).read_text().splitlines() if "--earlier" in given else None
        kept = lines is not None and max(map(json.loads, lines), key=lambda head: head["size"])
        expect(lines is None or (kept["size"], kept["root"]) == (first, older.hex()), "its earlier head is not yours")
        expect(0 < first <= size, "its earlier head is the later one")
        up = (first & -first).bit_length() - 1
        path = ([older.hex()] if first in (1 << up, size) else []) + proof["consistency"]
        start = bytes.fromhex(path[0])
        same = climb(first - 1 >> up, size - 1 >> up, start, start, path[1:]) if first < size else (older, start)
        expect(same == (older, root), f"the ledger does not continue the head over {first} rows")
        print(f"it continues the ledger of {first} rows: nothing before was changed")
    if "--file" in given or (folder / "manifest.json").exists():
        expect(digest(folder / "manifest.json") == row["body"]["digest"], "manifest.json is not what the row names")
        print("manifest.json lists the files of its artifact")
    if "--file" in given:
        listed = [entry[2] for entry in json.loads((folder / "manifest.json").read_bytes())["files"]]
        expect(digest(given["--file"]) in listed, f"{given['--file']} is no file of the artifact")
        print(f"{given['--file']} is one of them")
if __name__ == "__main__": main()
