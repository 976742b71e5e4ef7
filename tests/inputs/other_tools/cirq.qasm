// Generated from Cirq v1.7.0

OPENQASM 3.0;
include "stdgates.inc";


// Qubits: [q(0), q(1), q(2)]
qubit[3] q;
bit[1] m_flag;
bit[2] m_pair;


x q[0];
m_flag[0] = measure q[0];
if (m_flag!=0) x q[1];

// Gate: cirq.MeasurementGate(2, cirq.MeasurementKey(name='pair'), ())
m_pair[0] = measure q[1];
m_pair[1] = measure q[2];
