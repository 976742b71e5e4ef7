# SPDX-License-Identifier: Apache-2.0
"""Result: print the counts in a file that task_runner wrote."""

import json
import sys
from pathlib import Path

result = json.loads(Path(sys.argv[1]).read_text())
for number, circuit in enumerate(result["measurement_counts"]):
    most = sorted(circuit["counts"].items(), key=lambda item: -item[1])[:2]
    print(f"circuit {number}: {sum(circuit['counts'].values())} shots, most often {dict(most)}")
