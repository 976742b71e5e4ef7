# SPDX-License-Identifier: Apache-2.0
"""A program that has QRMI choose the QPU by a filter, and the least busy one."""

import os

from qrmi import ResourceProvider, ResourceType

prefix = "ibm_fez_"
variables = {
    name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)
}
provider = ResourceProvider(ResourceType.IBMQuantumComputeService, variables)
print([resource.resource_id() for resource in provider.resources("num_qubits=127&name=ibm_*&status=online")])
print(provider.least_busy().resource_id())
