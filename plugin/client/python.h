/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The Python command, which does everything that this client does, without a gateway as well. It is the one way to
 * go on where the client cannot.
 */
#ifndef QPU_SLURM_CLIENT_PYTHON_H
#define QPU_SLURM_CLIENT_PYTHON_H

/* What the plugin and the hooks hand on of an environment, besides what is named. */
#define PYTHON_PATH "PATH=/usr/bin:/bin"
#define PYTHON_LOCALE "LC_ALL=C.UTF-8"

/* Become the command. argv: its path, and its arguments. envp: its whole environment. Returns only a shell's code. */
int python_become(const char *const argv[], const char *const envp[]);

/* Run the command and wait for it. Returns its exit code, or what a shell has for one that was killed. */
int python_run(const char *const argv[], const char *const envp[]);

#endif
