"""What fetching an image costs: CPU milliseconds per image of `curate`'s fetcher, beside threads of urllib.

    python benchmarks/fetch.py [--json] [--images 1000] [--rounds 5]

Images of 70 KB from a server in another process on this machine (`serve.py`), 64 in flight at one host: over http and
https, on connections that the server closes after each image and on connections that it keeps. The peer is the standard
library's ``urllib`` in 64 threads with one shared TLS context, which is how img2dataset fetches (that one makes a new
context for each https request, and pays ten times as much). Rounds alternate between the two; medians are told. Client
processes are started for one round each; imports are not counted, loading the authorities' certificates is.

The last line is one JSON object: CPU ms per image by case, and ``ratio`` (ours / urllib's) by case.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

IN_FLIGHT = 64
SIZE = 70_000
DISTINCT = 40
CASES = [(connections, scheme) for connections in ("new", "kept") for scheme in ("http", "https")]


def ours(urls: list[str], authority: str) -> int:
    """Fetch with `curate`; returns bytes."""
    from curate.shards.web.fetch import Fetcher, FetchOptions

    os.environ["CURL_CA_BUNDLE"] = authority
    options = FetchOptions(concurrency=IN_FLIGHT, per_host=IN_FLIGHT, allow_private=True, timeout=30)
    with Fetcher(options) as fetcher:
        return sum(len(fetched.body or b"") for fetched in fetcher.fetch(urls))


def peer(urls: list[str], authority: str) -> int:
    """Fetch with urllib in threads; returns bytes."""
    import ssl
    import urllib.request
    from concurrent.futures import ThreadPoolExecutor

    context = ssl.create_default_context(cafile=authority)

    def get(url: str) -> int:
        with urllib.request.urlopen(url, timeout=30, context=context if url[4] == "s" else None) as answer:
            return len(answer.read())

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        return sum(pool.map(get, urls))


CLIENTS = {"curate": ours, "urllib": peer}


def client(name: str, port: int, scheme: str, images: int, authority: str) -> None:
    """One round, in a process of its own: prints CPU seconds."""
    urls = [f"{scheme}://127.0.0.1:{port}/{i}/{i % DISTINCT}.jpg" for i in range(images)]
    CLIENTS[name](urls[:1], authority)  # imports
    started = time.process_time()
    size = CLIENTS[name](urls, authority)
    used = time.process_time() - started
    if size != images * SIZE:
        raise SystemExit(f"{name}: {size} bytes instead of {images * SIZE}")
    print(used)


def measure(folder: Path, images: int, rounds: int) -> dict[str, dict[str, float]]:
    """CPU ms per image by case and client."""
    noise = np.random.default_rng(0).integers(0, 256, DISTINCT * SIZE, dtype=np.uint8)
    np.savez(folder / "images.npz", data=noise, ends=np.arange(1, DISTINCT + 1) * SIZE)
    servers, ports = [], {}
    try:
        for connections, flags in (("new", ["--close"]), ("kept", [])):
            (folder / connections).mkdir()
            told = folder / connections / "ports.json"
            serve = [sys.executable, str(Path(__file__).with_name("serve.py")), str(folder / "images.npz"), str(told)]
            servers.append(subprocess.Popen([*serve, *flags], stdout=subprocess.DEVNULL))
            while not told.exists():
                if servers[-1].poll() is not None:
                    raise SystemExit("the server ended before it was ready")
                time.sleep(0.05)
            ports[connections] = json.loads(told.read_text())
        spent: dict[tuple[str, str, str], list[float]] = {}
        for _ in range(rounds):
            for connections, scheme in CASES:
                where = ports[connections]
                for name in CLIENTS:
                    call = [sys.executable, __file__, "--client", name, str(where[scheme]), scheme, where["authority"]]
                    done = subprocess.run([*call, "--images", str(images)], capture_output=True, text=True, check=True)
                    spent.setdefault((connections, scheme, name), []).append(float(done.stdout) * 1000 / images)
    finally:
        for server in servers:
            server.terminate()
            server.wait()
    return {
        f"{scheme}_{connections}": {name: statistics.median(spent[connections, scheme, name]) for name in CLIENTS}
        for connections, scheme in CASES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--client", nargs=4, metavar=("NAME", "PORT", "SCHEME", "AUTHORITY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        name, port, scheme, authority = options.client
        client(name, int(port), scheme, options.images, authority)
        return
    with tempfile.TemporaryDirectory(prefix="curate-bench-") as folder:
        found = measure(Path(folder), options.images, options.rounds)
    if not options.json:
        print(f"CPU ms per image of {SIZE // 1000} KB, {IN_FLIGHT} in flight, median of {options.rounds}")
        for case, costs in found.items():
            print(f"  {case:12} curate {costs['curate']:.3f}   urllib {costs['urllib']:.3f}")
    table = {case: {name: round(ms, 4) for name, ms in costs.items()} for case, costs in found.items()}
    ratio = {case: round(costs["curate"] / costs["urllib"], 3) for case, costs in found.items()}
    print(json.dumps({"cpu_ms_per_image": table, "ratio": ratio, "images": options.images}))


if __name__ == "__main__":
    main()
