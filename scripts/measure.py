"""What the scripts that measure share. The suite beside torchvision and timm is `cnnzoo benchmark`."""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

from cnnzoo.benchmark import harness
from cnnzoo.device import pick_device


def ratios(name: str, ours: list[float], peers: list[float], unit: str) -> dict:
    """Pair by pair, ours over the peer's; higher is better."""
    pairs = [a / b for a, b in zip(ours, peers, strict=True)]
    row = {
        "what": name,
        "ours": statistics.median(ours),
        "peer": statistics.median(peers),
        "unit": unit,
        "ratio": statistics.median(pairs),
        "min": min(pairs),
        "max": max(pairs),
        "rounds": len(pairs),
    }
    print(
        f"{name:<44} ours {row['ours']:>12,.1f}  peer {row['peer']:>12,.1f} {unit:<9} "
        f"ratio {row['ratio']:.2f} ({row['min']:.2f} to {row['max']:.2f}, {row['rounds']} rounds)",
        flush=True,
    )
    return row


def main(about: str, known: dict[str, Callable[[], list[dict]]]) -> None:
    """Measure the parts that the command line names, of those known."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--json", type=Path, help="write the rows and the machine there")
    arguments = parser.parse_args()
    parts = arguments.parts or list(known)
    if strangers := set(parts) - set(known):
        parser.error(f"unknown part {', '.join(sorted(strangers))}; known: {', '.join(known)}")
    machine = harness.machine(pick_device("auto"))
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    rows = [row for part in parts for row in known[part]()]
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2), encoding="utf-8")
