# SPDX-License-Identifier: Apache-2.0
"""The last task of upstream's tutorial on splitting a job, at today's names: decode the result."""

import sys
from pathlib import Path

from qiskit_ibm_runtime.decoders.result_decoder import ResultDecoder

print(ResultDecoder.decode(Path(sys.argv[1]).read_text())[0].data.meas.get_counts())
