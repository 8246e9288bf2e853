"""Write the README's tables from benchmarks/results: python -m benchmarks.tables [--check]"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "inference_cpu.json"
BEGIN, END = "<!-- benchmarks.inference -->\n", "<!-- end -->\n"
PEERS = ("transformers eager", "transformers compile", "transformers onnxruntime", "transformers openvino", "smp eager")
OURS = ("ours eager", "ours compile", "ours onnxruntime", "ours openvino")


def inference_tables(results: dict[str, Any]) -> str:
    """Times as fast as transformers, eager, in fp32; a table a model and size."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if name != "segformer")
    about = f"{machine['cpu']}, {machine['threads']} threads; {versions}; {machine['date']}"
    return "".join(f"\n{table(row)}" for row in results["rows"]) + f"\n{about}.\n"


def table(row: dict[str, Any]) -> str:
    lines = [
        f"**MiT-{row['model'].upper()}, {row['size'].replace('x', ' x ')}**, {row['classes']} classes, "
        f"{row['rounds']} rounds, "
        f"{row['mixed']:.0%} of the cells mixed. Times as fast as transformers' model, eager, fp32 "
        f"(memory above the loaded model, share of its pixels that get the same class):\n\n",
        "| | fp32 | bf16 |\n|---|---|---|\n",
    ]
    for way in (*PEERS, *OURS):
        cells = [cell(row, f"{way} {precision}") for precision in ("fp32", "bf16")]
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
    return f"{before}{BEGIN}{inference_tables(json.loads(RESULTS.read_text()))}\n{END}{after}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    text = path.read_text()
    if "--check" in sys.argv:
        sys.exit(updated(text) != text)
    path.write_text(updated(text))
