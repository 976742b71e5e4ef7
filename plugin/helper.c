/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What a shell answers for a program that cannot be started. */
enum { NOT_STARTED = 127 };

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Close whatever slurmstepd has open: sockets, logs, the user's files. */
static void close_all_from(int first)
{
	long end;

#ifdef SYS_close_range
	if (syscall(SYS_close_range, (unsigned int)first, ~0U, 0U) == 0)
		return;
#endif
	end = sysconf(_SC_OPEN_MAX);
	for (int fd = first; fd < end; fd++)
		close(fd);
}

/* Have a file out of the way of the three, should slurmstepd have closed one of them. */
static int above_stdio(int fd)
{
	return fcntl(fd, F_DUPFD, STDERR_FILENO + 1);
}

/*
 * Become the program; slurmstepd has threads: only what is safe in a signal handler is called here.
 *
 * output: what it writes to; negative: nobody reads it.
 */
static _Noreturn void become(const char *const argv[], const char *const envp[], int output)
{
	int null = above_stdio(open("/dev/null", O_RDWR));
	sigset_t none;

	output = output < 0 ? null : above_stdio(output);

	/* 64 is the number of Linux's signals; those that cannot be set say so, and it does not matter. */
	for (int number = 1; number <= 64; number++)
		(void)signal(number, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)setpgid(0, 0);
	if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0 &&
	    dup2(null, STDERR_FILENO) >= 0 && chdir("/") == 0) {
		close_all_from(STDERR_FILENO + 1);
		/* execve takes pointers to char for historical reasons, and changes nothing. */
		execve(argv[0], (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)envp);
	}
	_exit(NOT_STARTED);
}

/* Read until the other end is closed. */
static bool read_all(struct helper_answer *answer, int fd, int64_t deadline, size_t limit,
		     struct problem *why)
{
	for (;;) {
		int64_t left = deadline - now();
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		int ready = left > 0 ? poll(&wait, 1, (int)left) : 0;
		ssize_t got;

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready == 0)
			return problem_set(why, "it did not end in time");
		got = read(fd, answer->text + answer->length, limit + 1 - answer->length);
		if (got < 0 && errno == EINTR)
			continue;
		if (ready < 0 || got < 0)
			return problem_set(why, "reading from it failed: %s", strerror(errno));
		if (got == 0)
			return true;
		answer->length += (size_t)got;
		if (answer->length > limit)
			return problem_set(why, "its output is too long");
	}
}

/* Wait until it ended, and leave it a zombie: its process group's id stays ours as long as it is one. */
static bool wait_for_end(pid_t pid, int64_t deadline, struct problem *why)
{
	static const struct timespec pause = {.tv_nsec = 2000000};

	for (;;) {
		siginfo_t info = {0};

		if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 && errno != EINTR)
			return problem_set(why, "waiting for it failed: %s", strerror(errno));
		if (info.si_pid == pid)
			return true;
		if (now() >= deadline)
			return problem_set(why, "it did not end in time");
		nanosleep(&pause, NULL);
	}
}

/* Kill what is left of it and of its children, and read how it ended. */
static bool reap(struct helper_answer *answer, pid_t pid, struct problem *why)
{
	int status;

	(void)kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return problem_set(why, "waiting for it failed: %s", strerror(errno));
	if (WIFSIGNALED(status))
		return problem_set(why, "it was killed by signal %d", WTERMSIG(status));
	answer->exit_code = WEXITSTATUS(status);
	if (answer->exit_code == NOT_STARTED)
		return problem_set(why, "it could not be started");
	return true;
}

bool helper_run(struct helper_answer *answer, const char *const argv[], const char *const envp[],
		int milliseconds, size_t limit, struct problem *why)
{
	int64_t deadline = now() + milliseconds;
	struct problem ignored;
	int ends[2];
	pid_t pid;
	bool said, ended;

	*answer = (struct helper_answer){0};
	answer->text = calloc(1, limit + 2); /* One byte to notice too much, and one for the NUL. */
	if (answer->text == NULL)
		return problem_set(why, "out of memory");
	if (pipe2(ends, O_CLOEXEC) != 0) {
		problem_set(why, "it could not be started: %s", strerror(errno));
		goto fail;
	}
	pid = fork();
	if (pid == 0)
		become(argv, envp, ends[1]);
	close(ends[1]);
	if (pid < 0) {
		problem_set(why, "it could not be started: %s", strerror(errno));
		close(ends[0]);
		goto fail;
	}
	(void)setpgid(pid, pid); /* Both sides do it: whoever comes first. */
	said = read_all(answer, ends[0], deadline, limit, why);
	close(ends[0]);
	ended = said && wait_for_end(pid, deadline, why);
	/* The first reason is the one to tell. */
	if (reap(answer, pid, ended ? why : &ignored) && ended)
		return true;
fail:
	helper_free(answer);
	return false;
}

bool helper_leave(const char *const argv[], const char *const envp[], unsigned int seconds,
		  struct problem *why)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		/* Its parent ends at once, so that it is nobody's child. */
		(void)setsid();
		pid = fork();
		if (pid != 0)
			_exit(pid < 0);
		(void)alarm(seconds);
		become(argv, envp, -1);
	}
	if (pid < 0)
		return problem_set(why, "it could not be started: %s", strerror(errno));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return problem_set(why, "waiting for it failed: %s", strerror(errno));
	return status == 0 || problem_set(why, "it could not be started");
}

void helper_free(struct helper_answer *answer)
{
	if (answer->text != NULL)
		explicit_bzero(answer->text, answer->length);
	free(answer->text);
	*answer = (struct helper_answer){0};
}
