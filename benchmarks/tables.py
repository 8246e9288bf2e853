"""Write the README's tables from benchmarks/results.

    python -m benchmarks.tables [--check]

With --check nothing is written; the exit status is 1 if the README differs from the results.
"""

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
    """Return one table for each model and size, and a line about the machine."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if name != "segformer")
    processor = machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} threads"
    about = f"{processor}; {versions}; {machine['date']}"
    return "".join(f"\n{inference_table(row)}" for row in results["rows"]) + f"\n{about}.\n"


def inference_table(row: dict[str, Any]) -> str:
    """Return how many times as fast as transformers' eager fp32 model each pipeline is."""
    batch = f", batch {row['batch']}" if row["batch"] > 1 else ""
    found = {name.rpartition(" ")[2] for name in row["seconds"]}
    precisions = [precision for precision in PRECISIONS if precision in found]
    lines = [
        f"**MiT-{row['model'].upper()}, {row['size'].replace('x', ' x ')}{batch}**, {row['classes']} classes, "
        f"{row['rounds']} rounds, {row['mixed']:.0%} of the cells mixed. Speed relative to transformers' eager fp32 "
        f"model (memory above the loaded model, share of pixels with the same class):\n\n",
        f"| | {' | '.join(precisions)} |\n|---|{'---|' * len(precisions)}\n",
    ]
    for name in (*PEERS, *OURS):
        cells = [format_cell(row, f"{name} {precision}") for precision in precisions]
        if any(text != "-" for text in cells):
            lines.append(f"| {name} | {' | '.join(cells)} |\n")
    return "".join(lines)


def format_cell(row: dict[str, Any], name: str) -> str:
    if name not in row["seconds"]:
        return "-"
    memory = f"{row['memory, MiB'][name]:.0f} MiB, " if row["memory, MiB"] else ""
    times = f"{row['times as fast'][name]:.1f}"
    return f"{f'**{times}**' if name.startswith('ours') else times} ({memory}{100 * row['equal'][name]:.1f} %)"


def with_tables(readme: str) -> str:
    """Return the README with its tables replaced by those of the results."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = [inference_tables(json.loads(path.read_text())) for path in RESULTS if path.is_file()]
    return f"{before}{BEGIN}{''.join(tables)}\n{END}{after}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    text = path.read_text()
    if "--check" in sys.argv:
        sys.exit(with_tables(text) != text)
    path.write_text(with_tables(text))
