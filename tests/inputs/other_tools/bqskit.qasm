OPENQASM 2.0;
include "qelib1.inc";
qreg q[3];
rz(0.5) q[1];
x q[2];
cx q[2], q[0];
