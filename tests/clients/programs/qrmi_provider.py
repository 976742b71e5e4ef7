# SPDX-License-Identifier: Apache-2.0
"""A program that has QRMI choose the QPU by a filter."""

import os

from qrmi import ResourceProvider, ResourceType

prefix = "ibm_fez_"
variables = {
    name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)
}
kind = ResourceType.IBMQiskitRuntimeService  # the name of the type that all releases know
provider = ResourceProvider(kind, variables)
wanted = "num_qubits=127&name=ibm_f*&status=online"
print([resource.resource_id() for resource in provider.resources(wanted)])
print(provider.least_busy(wanted).resource_id())
