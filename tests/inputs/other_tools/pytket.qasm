OPENQASM 2.0;
include "qelib1.inc";

qreg q[2];
creg first[1];
creg second[1];
x q[0];
cx q[0],q[1];
measure q[0] -> second[0];
rx(1.0*pi) q[1];
measure q[1] -> first[0];
