"""Write the README's tables from benchmarks/results: python -m benchmarks.tables [--check]"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = tuple(ROOT / "benchmarks" / "results" / f"inference_{device}.json" for device in ("cpu", "cuda"))
BEGIN, END = "<!-- benchmarks.inference -->\n", "<!-- end -->\n"
PEERS = ("transformers eager", "transformers compile", "transformers onnxruntime", "transformers openvino", "smp eager")
OURS = ("ours eager", "ours compile", "ours onnxruntime", "ours openvino")
PRECISIONS = ("fp32", "bf16", "fp16")


def inference_tables(results: dict[str, Any]) -> str:
    """Times as fast as transformers, eager, in fp32; a table a model and size."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if name != "segformer")
    place = machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} threads"
    about = f"{place}; {versions}; {machine['date']}"
    return "".join(f"\n{table(row)}" for row in results["rows"]) + f"\n{about}.\n"


def table(row: dict[str, Any]) -> str:
    batch = f", batch {row['batch']}" if row["batch"] > 1 else ""
    found = {way.rpartition(" ")[2] for way in row["seconds"]}
    precisions = [precision for precision in PRECISIONS if precision in found]
    lines = [
        f"**MiT-{row['model'].upper()}, {row['size'].replace('x', ' x ')}{batch}**, {row['classes']} classes, "
        f"{row['rounds']} rounds, "
        f"{row['mixed']:.0%} of the cells mixed. Times as fast as transformers' model, eager, fp32 "
        f"(memory above the loaded model, share of its pixels that get the same class):\n\n",
        f"| | {' | '.join(precisions)} |\n|---|{'---|' * len(precisions)}\n",
    ]
    for way in (*PEERS, *OURS):
        cells = [cell(row, f"{way} {precision}") for precision in precisions]
        if any(text != "-" for text in cells):
            lines.append(f"| {way} | {' | '.join(cells)} |\n")
    return "".join(lines)


def cell(row: dict[str, Any], way: str) -> str:
    if way not in row["seconds"]:
        return "-"
    memory = f"{row['memory, MiB'][way]:.0f} MiB, " if row["memory, MiB"] else ""
    times = f"{row['times as fast'][way]:.1f}"
    return f"{f'**{times}**' if way.startswith('ours') else times} ({memory}{100 * row['equal'][way]:.1f} %)"


def updated(readme: str) -> str:
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = [inference_tables(json.loads(path.read_text())) for path in RESULTS if path.is_file()]
    return f"{before}{BEGIN}{''.join(tables)}\n{END}{after}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    text = path.read_text()
    if "--check" in sys.argv:
        sys.exit(updated(text) != text)
    path.write_text(updated(text))
