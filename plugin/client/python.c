/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/python.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_EXECUTABLE = 126, NOT_THERE = 127, KILLED = 128 };

int python_become(const char *const argv[], const char *const envp[])
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (null >= 0)
		(void)dup2(null, STDIN_FILENO);
	(void)alarm(0);
	/* execve takes pointers to char for historical reasons, and changes nothing. */
	execve(argv[0], (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)envp);
	return errno == ENOENT ? NOT_THERE : NOT_EXECUTABLE;
}

int python_run(const char *const argv[], const char *const envp[])
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(python_become(argv, envp));
	if (pid < 0)
		return NOT_EXECUTABLE;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return NOT_EXECUTABLE;
	return WIFSIGNALED(status) ? KILLED + WTERMSIG(status) : WEXITSTATUS(status);
}
