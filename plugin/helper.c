/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"

/* What a shell answers for a program that cannot be started. */
enum { NOT_STARTED = 127 };

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
	if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0 &&
	    dup2(null, STDERR_FILENO) >= 0 && chdir("/") == 0) {
		close_all_from(STDERR_FILENO + 1);
		/* execve takes pointers to char for historical reasons, and changes nothing. */
		execve(argv[0], (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)envp);
	}
	_exit(NOT_STARTED);
}

/* Read until the other end is closed. */
static enum helper_end read_all(struct helper_answer *answer, int fd, int64_t deadline, size_t limit,
				struct problem *why)
{
	for (;;) {
		int64_t left = deadline - clock_now();
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		int ready = left > 0 ? poll(&wait, 1, (int)left) : 0;
		ssize_t got;

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready == 0) {
			problem_set(why, "it did not end in time");
			return HELPER_STOPPED;
		}
		got = read(fd, answer->text + answer->length, limit + 1 - answer->length);
		if (got < 0 && errno == EINTR)
			continue;
		if (ready < 0 || got < 0) {
			problem_set(why, "reading from it failed: %s", strerror(errno));
			return HELPER_FAILED;
		}
		if (got == 0)
			return HELPER_ENDED;
		answer->length += (size_t)got;
		if (answer->length > limit) {
			problem_set(why, "its output is too long");
			return HELPER_FAILED;
		}
	}
}

/* Wait until it ended, and leave it a zombie: its process group's id stays ours as long as it is one. */
static enum helper_end wait_for_end(pid_t pid, int64_t deadline, struct problem *why)
{
	for (;;) {
		siginfo_t info = {0};

		if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 && errno != EINTR) {
			problem_set(why, "waiting for it failed: %s", strerror(errno));
			return HELPER_FAILED;
		}
		if (info.si_pid == pid)
			return HELPER_ENDED;
		if (clock_now() >= deadline) {
			problem_set(why, "it did not end in time");
			return HELPER_STOPPED;
		}
		clock_sleep(2);
	}
}

/* Kill what is left of it, and read how it ended. */
static enum helper_end reap(struct helper_answer *answer, pid_t pid, enum helper_place place,
			    struct problem *why)
{
	int status;

	(void)kill(place == HELPER_APART ? -pid : pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR) {
			problem_set(why, "waiting for it failed: %s", strerror(errno));
			return HELPER_FAILED;
		}
	}
	if (WIFSIGNALED(status)) {
		problem_set(why, "it was killed by signal %d", WTERMSIG(status));
		return HELPER_STOPPED;
	}
	answer->exit_code = WEXITSTATUS(status);
	if (answer->exit_code == NOT_STARTED) {
		problem_set(why, "it could not be started");
		return HELPER_FAILED;
	}
	return HELPER_ENDED;
}

/* Begin as the child that becomes the program. */
static void settle(enum helper_place place, pid_t parent)
{
	if (place == HELPER_APART) {
		(void)setpgid(0, 0);
		return;
	}
	/* A parent that has died already sends no signal any more. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
		_exit(NOT_STARTED);
}

enum helper_end helper_run(struct helper_answer *answer, const char *const argv[], const char *const envp[],
			   enum helper_place place, int milliseconds, size_t limit, struct problem *why)
{
	int64_t deadline = clock_now() + milliseconds;
	enum helper_end end = HELPER_FAILED, reaped;
	struct problem ignored;
	pid_t pid, self = getpid();
	int ends[2];

	*answer = (struct helper_answer){0};
	answer->text = calloc(1, limit + 2); /* One byte to notice too much, and one for the NUL. */
	if (answer->text == NULL) {
		problem_set(why, "out of memory");
		return HELPER_FAILED;
	}
	if (pipe2(ends, O_CLOEXEC) != 0) {
		problem_set(why, "it could not be started: %s", strerror(errno));
		goto done;
	}
	pid = fork();
	if (pid == 0) {
		settle(place, self);
		become(argv, envp, ends[1]);
	}
	close(ends[1]);
	if (pid < 0) {
		problem_set(why, "it could not be started: %s", strerror(errno));
		close(ends[0]);
		goto done;
	}
	if (place == HELPER_APART)
		(void)setpgid(pid, pid); /* Both sides do it: whoever comes first. */
	end = read_all(answer, ends[0], deadline, limit, why);
	close(ends[0]);
	if (end == HELPER_ENDED)
		end = wait_for_end(pid, deadline, why);
	/* The first reason is the one to tell. */
	reaped = reap(answer, pid, place, end == HELPER_ENDED ? why : &ignored);
	if (end == HELPER_ENDED)
		end = reaped;
done:
	if (end != HELPER_ENDED)
		helper_free(answer);
	return end;
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
		settle(HELPER_APART, 0);
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
